"""Reference mismatch: how far what the base draws is from what the user wants, for the same prompts.

The paper's measure (arXiv 2406.06424v2): similarity of features between the base's own samples and the chosen images.
From it ``beta: "auto"`` takes the paper's best beta of a domain that far away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainer.drawing.features import Features
from trainer.spec.methods import Preset

RESAMPLES = 2000


@dataclass(frozen=True)
class Similarity:
    """Mean over pairs of images, with a 95% bootstrap interval over them."""

    mean: float
    low: float
    high: float
    images: int
    features: str


# The paper orders its domains by mismatch, from general to personalization, and gives each one's best beta; it gives no
# values to tell them apart by. These are ours. Statistics: by what emoji-xl's samples have with its own training
# images (0.99), blurred (0.975), recoloured (0.95), drawn as lines (0.87) and with unrelated pictures (0.5); DINOv2's
# stand on no measurement of ours (docs/decisions/0006-reference-mismatch.md).
THRESHOLDS: dict[str, tuple[tuple[float, Preset], ...]] = {
    "statistics": ((0.97, "general"), (0.92, "culture"), (0.75, "style"), (-1.0, "personalization")),
    "dinov2": ((0.75, "general"), (0.6, "culture"), (0.4, "style"), (-1.0, "personalization")),
}


def spread(prompts: Sequence[str], count: int) -> list[int]:
    """Places of at most ``count`` pairs, of as many different prompts as there are, chosen by hash and not by order."""
    by_hash = sorted(range(len(prompts)), key=lambda at: hashlib.sha256(f"{prompts[at]}\0{at}".encode()).digest())
    first: dict[str, int] = {}
    for at in by_hash:
        first.setdefault(prompts[at], at)
    rest = [at for at in by_hash if at not in set(first.values())]
    return [*first.values(), *rest][:count]


def similarity(drawn: Sequence[Image.Image], chosen: Sequence[Image.Image], features: Features) -> Similarity:
    """Of each drawn image to the chosen image of the same pair."""
    values = np.array([features.similarity(one, other) for one, other in zip(drawn, chosen, strict=True)])
    resamples = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[resamples].mean(axis=1), [0.025, 0.975])
    return Similarity(float(values.mean()), float(low), float(high), len(values), features.name)


def preset_for(mean: float, features: str) -> Preset:
    """The domain that is as far away, by ``THRESHOLDS``."""
    return next(preset for least, preset in THRESHOLDS[features] if mean >= least)
