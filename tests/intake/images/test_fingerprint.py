"""The threshold of near copies, on real drawings."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from demo.emoji import openmoji
from intake.images.fingerprint import NEAR, distance, fingerprint

pytestmark = pytest.mark.unit
DRAWINGS = [openmoji.render(emoji.key, "color", 256) for emoji in openmoji.catalogue()[::4]]


def saved_as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file)


def test_a_drawing_saved_again_or_scaled_is_near_itself() -> None:
    for drawing in DRAWINGS:
        for copy in (saved_as_jpeg(drawing), drawing.resize((128, 128)), drawing.convert("RGBA")):
            assert distance(fingerprint(drawing), fingerprint(copy)) <= NEAR


def test_other_drawings_and_most_line_art_are_not() -> None:
    prints = [fingerprint(drawing) for drawing in DRAWINGS]
    others = [distance(one, other) for place, one in enumerate(prints) for other in prints[:place]]
    assert min(others) > NEAR
    line = [fingerprint(openmoji.render(emoji.key, "line", 256)) for emoji in openmoji.catalogue()[::4]]
    assert np.mean([distance(one, other) > NEAR for one, other in zip(prints, line, strict=True)]) > 0.95
