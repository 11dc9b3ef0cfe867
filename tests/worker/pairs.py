"""Archives of pairs of noise, small enough to train on in seconds."""

from __future__ import annotations

import random

from PIL import Image

from tests.intake.build import encoded, jsonl, zip_of
from tests.trainer.tiny_sdxl import PROMPTS


def png(seed: int) -> bytes:
    return encoded(Image.frombytes("RGB", (32, 32), random.Random(seed).randbytes(32 * 32 * 3)))


def archive_of(*, rejected: bool) -> bytes:
    """14 pairs over 7 prompts."""
    sides = {"chosen": "a"} | ({"rejected": "b"} if rejected else {})
    rows = [
        {"prompt": PROMPTS[index % 7]} | {column: f"{index}-{side}.png" for column, side in sides.items()}
        for index in range(14)
    ]
    images = {f"{index}-{side}.png": png(2 * index + (side == "b")) for index in range(14) for side in sides.values()}
    return zip_of({"metadata.jsonl": jsonl(*rows), **images}.items())
