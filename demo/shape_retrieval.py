"""Shape retrieval: the real image that a sample is nearest to, without learned features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16


def retrieved_right(samples: Sequence[Image.Image], real: Sequence[Image.Image]) -> NDArray[np.bool_]:
    """Whether each sample's nearest image among ``real`` is the one at its own index; shape (samples,)."""
    similarity = _vectors(samples) @ _vectors(real).T  # cosine, (samples, real)
    right: NDArray[np.bool_] = similarity.argmax(axis=1) == np.arange(len(samples))
    return right


def _vectors(images: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Unit vectors of the images at 16 x 16 pixels, less their mean: (images, 768)."""
    small = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) for image in images]
    vectors = np.stack(small).reshape(len(images), -1)
    vectors -= vectors.mean(axis=1, keepdims=True)
    unit: NDArray[np.float64] = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)
    return unit
