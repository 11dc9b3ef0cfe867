"""How much an emoji looks like line art: a logistic regression on colour statistics of real renderings.

Trained on the training emoji's two renderings, never on anything generated, and measured on the held-out emoji.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

RIDGE = 1e-3
ITERATIONS = 50


@dataclass(frozen=True)
class StyleScorer:
    """``weights`` (features + 1,) act on standardised features; the last one is the bias."""

    mean: Floats
    scale: Floats
    weights: Floats

    def __call__(self, images: list[Image.Image]) -> Floats:
        """Probability of line art, shape (images,)."""
        return _sigmoid(_with_bias((_features(images) - self.mean) / self.scale) @ self.weights)


def train_scorer(line: list[Image.Image], colour: list[Image.Image]) -> StyleScorer:
    features = _features([*line, *colour])
    wanted = np.repeat([1.0, 0.0], [len(line), len(colour)])
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = _with_bias((features - mean) / scale)
    weights = np.zeros(inputs.shape[1])
    for _ in range(ITERATIONS):  # Newton's method on the ridge-penalised likelihood
        predicted = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (predicted - wanted) / len(inputs) + RIDGE * weights
        curvature = (inputs.T * (predicted * (1 - predicted))) @ inputs / len(inputs) + RIDGE * np.eye(len(weights))
        weights = weights - np.linalg.solve(curvature, gradient)
    return StyleScorer(mean, scale, weights)


def _features(images: list[Image.Image]) -> Floats:
    """Per image: share of near-white, of near-black, of saturated pixels, mean saturation, mean level; (images, 5)."""
    rows = []
    for image in images:
        pixels = np.asarray(image, dtype=np.float64) / 255
        saturation = pixels.max(axis=2) - pixels.min(axis=2)
        level = pixels.mean(axis=2)
        rows.append(
            [(level > 0.9).mean(), (level < 0.25).mean(), (saturation > 0.2).mean(), saturation.mean(), level.mean()]
        )
    return np.array(rows)


def _with_bias(features: Floats) -> Floats:
    return np.hstack([features, np.ones((len(features), 1))])


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))
