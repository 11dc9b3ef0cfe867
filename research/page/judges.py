"""Measure how far the judges can be trusted, on real drawings, each time that the report is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from demo.emoji import drawings, openmoji
from demo.emoji.scorers import Scorers


@dataclass(frozen=True)
class ColourBlindness:
    """Shares of the catalogue's colour emoji whose identity is still told right with their colours changed."""

    swapped: float  # red for blue
    grey: float


def colour_blindness(scorers: Scorers) -> ColourBlindness:
    """A judge that looks at colours would be wrong on most of them: a green tomato is not the prompt's."""
    return ColourBlindness(swapped=_still_told(scorers, _swapped), grey=_still_told(scorers, _grey))


def _still_told(scorers: Scorers, change: Callable[[Image.Image], Image.Image]) -> float:
    catalogue = openmoji.catalogue()
    shown = scorers.shown([change(drawings.colour(emoji)) for emoji in catalogue])
    return float((shown == np.arange(len(catalogue))).mean())


def _swapped(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (blue, green, red))


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")
