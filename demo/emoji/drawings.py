"""Render each domain's images from OpenMoji: 64 x 64 pixels on white, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from demo.emoji import openmoji
from demo.emoji.openmoji import IMAGE_SIZE

INK = ((22, 33, 84), (74, 112, 178), (190, 214, 238), (255, 255, 255))  # dark to light, as on blue-and-white porcelain
VERMILION = (196, 44, 32)
SEAL, SEAL_CORNER = 13, (49, 49)  # side and upper left corner, pixels
OVERSAMPLED = 4
DEGRADATIONS = ("blur", "noise", "jpeg", "washed out")

Drawing = Callable[[openmoji.Emoji], Image.Image]


@cache
def colour(emoji: openmoji.Emoji) -> Image.Image:
    return openmoji.render(emoji.key, "color", IMAGE_SIZE)


@cache
def line_art(emoji: openmoji.Emoji) -> Image.Image:
    return openmoji.render(emoji.key, "line", IMAGE_SIZE)


@cache
def without_outline(emoji: openmoji.Emoji) -> Image.Image:
    return openmoji.render(emoji.key, "flat", IMAGE_SIZE)


@cache
def porcelain(emoji: openmoji.Emoji) -> Image.Image:
    """The colours as shades of cobalt blue by their lightness, and a vermilion seal in the lower right corner."""
    large = openmoji.render(emoji.key, "color", OVERSAMPLED * IMAGE_SIZE)
    lightness = np.asarray(large.convert("L"), dtype=np.float64) / 255
    stops = np.linspace(0, 1, len(INK))
    shades = np.stack([np.interp(lightness, stops, [ink[band] for ink in INK]) for band in range(3)], axis=-1)
    drawn = Image.fromarray(shades.round().astype(np.uint8)).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    drawn.paste(seal(), SEAL_CORNER)
    return drawn


@cache
def seal() -> Image.Image:
    """A square stamp with three strokes left white."""
    side = SEAL * OVERSAMPLED
    stamp = Image.new("RGB", (side, side), VERMILION)
    draw = ImageDraw.Draw(stamp)
    for left, top, right, bottom in ((3, 3, 10, 4), (6, 3, 7, 10), (3, 8.5, 10, 9.5)):
        draw.rectangle([OVERSAMPLED * edge for edge in (left, top, right, bottom)], fill="white")
    return stamp.resize((SEAL, SEAL), Image.Resampling.BOX)


@cache
def degraded(emoji: openmoji.Emoji) -> Image.Image:
    """What goes wrong with pictures: one of four faults, by the emoji's code point."""
    return degrade(colour(emoji), DEGRADATIONS[emoji.codepoint % len(DEGRADATIONS)], seed=emoji.codepoint)


def degrade(image: Image.Image, fault: str, *, seed: int) -> Image.Image:
    if fault == "blur":
        return image.filter(ImageFilter.GaussianBlur(2.0))
    if fault == "noise":
        noise = np.random.default_rng(seed).normal(0, 38, (IMAGE_SIZE, IMAGE_SIZE, 3))
        return _picture(np.asarray(image) + noise)
    if fault == "jpeg":
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=3)
        return Image.open(packed).convert("RGB")
    return _picture(150 + 0.3 * np.asarray(image, dtype=np.float64))  # little contrast, nothing white


def _picture(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
