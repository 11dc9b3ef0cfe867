"""The demo's measures on inputs whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from demo.shape_retrieval import retrieved_right
from demo.win_rate import win_rate

pytestmark = pytest.mark.unit


def test_win_rate_counts_a_tie_as_one_half() -> None:
    ours = np.array([[0.9, 0.9], [0.5, 0.5], [0.1, 0.9]])
    theirs = np.array([[0.1, 0.1], [0.5, 0.505], [0.9, 0.1]])
    # Prompt by prompt: two wins; two ties (0.005 apart is one); a loss and a win: (1 + 0.5 + 0.5) / 3.
    assert win_rate(ours, theirs).rate == pytest.approx(2 / 3)


def test_win_rate_interval_covers_the_rate_and_narrows_with_prompts() -> None:
    rng = np.random.default_rng(1)
    few, many = (win_rate(rng.random((count, 1)), rng.random((count, 1))) for count in (10, 1000))
    assert few.low <= few.rate <= few.high
    assert many.high - many.low < few.high - few.low


def test_win_rate_of_certain_wins_is_certain() -> None:
    won = win_rate(np.ones((5, 2)), np.zeros((5, 2)))
    assert (won.rate, won.low, won.high) == (1.0, 1.0, 1.0)


def test_retrieval_finds_shapes_whatever_their_brightness() -> None:
    real = [_disc(x, "black") for x in (8, 24, 40)]
    samples = [_disc(9, "grey"), _disc(24, "grey"), _disc(8, "grey")]
    assert retrieved_right(samples, real).tolist() == [True, True, False]


def _disc(x: int, colour: str) -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((x, 20, x + 16, 36), fill=colour)
    return image
