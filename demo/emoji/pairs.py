"""The bundled example archive: preference pairs that ask for line art instead of colour, from OpenMoji.

Both images of a pair are the same drawing at 64 x 64 pixels: chosen is the line art, rejected the colour emoji. Four
emoji of the catalogue are left out because their two renderings hardly differ (a mean absolute difference below 1 of
255), so that they would teach nothing: sake bottle and cup, swan, takeout box, zebra face.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from demo.emoji import openmoji
from demo.emoji.openmoji import IMAGE_SIZE

SMALLEST_DIFFERENCE = 1.0  # mean absolute difference of the renderings, in levels of 255
_FIXED_TIME = (2020, 1, 1, 0, 0, 0)  # the archive's bytes depend on its content alone

README = f"""Preference pairs: an emoji as line art (chosen) over the same emoji in colour (rejected)
================================================================================

metadata.jsonl has one pair per line: prompt, chosen, rejected (paths of {IMAGE_SIZE} x {IMAGE_SIZE} PNG files in
images/) and split (train, or validation for emoji that are kept out of training).

Attribution
-----------
{openmoji.ATTRIBUTION}
Changes made: rendered at {IMAGE_SIZE} x {IMAGE_SIZE} pixels on white; for the chosen images the colour layers were
removed. Captions are derived from Unicode character names.
"""

LICENSE = f"""The images in this archive are adapted from OpenMoji, the open source emoji project.

{openmoji.ATTRIBUTION}

You may share and adapt them, also commercially, if you give appropriate credit, link to the licence, indicate
changes, and distribute your adaptations under the same licence:
Creative Commons Attribution-ShareAlike 4.0 International
https://creativecommons.org/licenses/by-sa/4.0/
The full legal text: https://creativecommons.org/licenses/by-sa/4.0/legalcode
"""


def write_archive(path: Path) -> int:
    """Write the zip whole or not at all, and return the number of pairs. The same OpenMoji gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    rows: list[dict[str, str]] = []
    with zipfile.ZipFile(partial, "w") as archive:
        _add(archive, "README.txt", README.encode())
        _add(archive, "LICENSE.txt", LICENSE.encode())
        for emoji, chosen, rejected in _distinct_renderings():
            row = _row(emoji)
            rows.append(row)
            _add(archive, row["chosen"], _png(chosen))
            _add(archive, row["rejected"], _png(rejected))
        _add(archive, "metadata.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    os.replace(partial, path)
    return len(rows)


def _distinct_renderings() -> Iterator[tuple[openmoji.Emoji, Image.Image, Image.Image]]:
    for emoji in openmoji.catalogue():
        line = openmoji.render(emoji.key, "line", IMAGE_SIZE)
        colour = openmoji.render(emoji.key, "color", IMAGE_SIZE)
        if difference(line, colour) >= SMALLEST_DIFFERENCE:
            yield emoji, line, colour


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two images of one size, in levels of 255."""
    return float(np.abs(openmoji.pixels(first).astype(int) - openmoji.pixels(second)).mean())


def _row(emoji: openmoji.Emoji) -> dict[str, str]:
    return {
        "prompt": emoji.caption,
        "chosen": f"images/{emoji.key}-line.png",
        "rejected": f"images/{emoji.key}-color.png",
        "split": "validation" if emoji.held_out else "train",
    }


def _png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _FIXED_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    entry.create_system = 3  # Unix, also when written elsewhere
    archive.writestr(entry, data)
