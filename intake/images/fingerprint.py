"""What images share that a person would take for one: saved again, scaled, hardly recoloured."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 8
SAMPLED = 256  # pixels of the image that are looked at, across and down: looking at all would cost as much as decoding
# Mean difference of two fingerprints, in levels of 255. Measured on the example's 262 drawings
# (tests/intake/images/test_fingerprint.py): one saved as JPEG of quality 60 or scaled to half is at most 1.1 from
# itself; line art is more than that from the same drawing in colour for all but four, which hardly differ.
NEAR = 1.25


def fingerprint(image: Image.Image) -> bytes:
    """The RGB image at 8 x 8 pixels, each the mean of at most 1,024 pixels spread over its cell: 192 bytes."""
    sampled = image.resize((min(image.width, SAMPLED), min(image.height, SAMPLED)), Image.Resampling.NEAREST)
    if sampled.mode != "RGB":
        sampled = sampled.convert("RGB")
    if sampled.width % SIDE or sampled.height % SIDE:
        return sampled.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    return sampled.reduce((sampled.width // SIDE, sampled.height // SIDE)).tobytes()  # faster, where cells are whole


def distance(one: bytes, other: bytes) -> float:
    """Mean absolute difference, in levels of 255."""
    return float(np.abs(_levels(one) - _levels(other)).mean())


def _levels(taken: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.frombuffer(taken, dtype=np.uint8).astype(np.int16)
