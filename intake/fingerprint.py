"""What images share that a person would take for one: saved again, scaled, hardly recoloured."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 8
# Mean difference of two fingerprints, in levels of 255. Measured on the example's 262 drawings
# (tests/intake/test_fingerprint.py): one saved as JPEG of quality 60 or scaled to half is at most 1.1 from itself; line
# art is more than that from the same drawing in colour for all but four, which hardly differ.
NEAR = 1.25


def fingerprint(image: Image.Image) -> bytes:
    """The RGB image at 8 x 8 pixels, each the mean of its cell: 192 bytes."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return small.tobytes()


def distance(one: bytes, other: bytes) -> float:
    """Mean absolute difference, in levels of 255."""
    return float(np.abs(_levels(one) - _levels(other)).mean())


def _levels(taken: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.frombuffer(taken, dtype=np.uint8).astype(np.int16)
