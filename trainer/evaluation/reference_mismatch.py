"""Reference mismatch: how far the base's samples are from the chosen images, for the same prompts.

The paper's measure (arXiv 2406.06424v2): similarity of features between the base's own samples and the chosen images.
From it ``beta: "auto"`` takes the paper's best beta of a domain that far away: the farther, the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainer.evaluation.features import Features
from trainer.evaluation.image_statistics import Vector
from trainer.spec.methods import Preset

RESAMPLES = 2000


@dataclass(frozen=True)
class Similarity:
    """``low`` and ``high`` are a 95% bootstrap interval over pairs of the data; ``images`` were sampled."""

    value: float
    low: float
    high: float
    images: int
    features: str


# The paper orders its domains by mismatch, from general to personalization, and gives each one's best beta; it gives no
# values to distinguish them by. These are ours. What supports those of the statistics is in
# docs/decisions/0006-reference-mismatch.md; DINOv2's rest on no measurement.
THRESHOLDS: dict[str, tuple[tuple[float, Preset], ...]] = {
    "statistics": ((0.78, "general"), (0.72, "culture"), (0.45, "style"), (-1.0, "personalization")),
    "dinov2": ((0.75, "general"), (0.6, "culture"), (0.4, "style"), (-1.0, "personalization")),
}


def similarity(
    sampled: Sequence[Image.Image], chosen: Sequence[Image.Image], pairs: Sequence[int], features: Features
) -> Similarity:
    """Of sampled images to the chosen ones for the same prompts; ``pairs`` says which of the data's pairs each is of.

    Two images at least.
    """
    shown, wanted = (np.stack([features.vector(image) for image in images]) for images in (sampled, chosen))
    (value,) = features.similarity(shown, wanted, pairs, np.ones((1, len(pairs))))
    resampled = features.similarity(shown, wanted, pairs, _resamples(pairs))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Similarity(float(value), float(low), float(high), len(sampled), features.name)


def _resamples(pairs: Sequence[int]) -> Vector:
    """(resamples, images): how often each image counts where pairs are drawn with replacement, always the same way."""
    different, of = np.unique(np.asarray(pairs), return_inverse=True)
    count = len(different)
    if count == 1:
        return np.ones((1, len(pairs)))
    counts = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=RESAMPLES)
    several = (counts > 0).sum(axis=1) > 1  # one pair alone has nothing to be compared with
    weights: Vector = counts[several][:, of].astype(np.float64)
    return weights


def preset_for(value: float, features: str) -> Preset:
    """The domain that is as far away, by ``THRESHOLDS``."""
    return next(preset for least, preset in THRESHOLDS[features] if value >= least)
