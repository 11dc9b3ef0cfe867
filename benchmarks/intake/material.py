"""Archives to read: pictures like photographs in each format, and very many small ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 1024
OPTIONS: dict[str, dict[str, int]] = {"JPEG": {"quality": 90}, "PNG": {"compress_level": 6}, "WEBP": {"quality": 85}}


def photograph(number: int) -> Image.Image:
    """Smooth shapes with some grain, other ones for every number; SIDE x SIDE pixels."""
    chance = np.random.default_rng(number)
    coarse = Image.fromarray(chance.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = chance.normal(0, 4, (SIDE, SIDE, 1)).astype(np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, format_: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **OPTIONS[format_])
    return file.getvalue()


def write_pairs(path: Path, images: Iterator[bytes], *, suffix: str) -> int:
    """A zip of pairs, two images each in their order; returns how many pairs."""
    rows: list[str] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, (chosen, rejected) in enumerate(zip(images, images, strict=False)):
            names = [f"images/{number}-{side}.{suffix}" for side in ("chosen", "rejected")]
            for name, data in zip(names, (chosen, rejected), strict=True):
                archive.writestr(name, data)
            rows.append(json.dumps({"prompt": f"picture {number}", "chosen": names[0], "rejected": names[1]}))
        archive.writestr("metadata.jsonl", "\n".join(rows))
    return len(rows)


def small_images(count: int) -> Iterator[bytes]:
    """32 x 32 pixels each, all different."""
    chance = np.random.default_rng(0)
    for _ in range(count):
        yield encoded(Image.fromarray(chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)), "PNG")
