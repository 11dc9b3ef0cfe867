"""Win rate of one set of images over another, with a bootstrap interval over prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 0.01  # scores are probabilities; closer than this is no difference
RESAMPLES = 10_000


@dataclass(frozen=True)
class WinRate:
    """Share of comparisons won, ties counting one half, and its 95% interval."""

    rate: float
    low: float
    high: float


def win_rate(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int = 0) -> WinRate:
    """Scores of shape (prompts, seeds): the same prompts and seeds on both sides, higher is better."""
    difference = ours - theirs
    per_prompt = np.where(np.abs(difference) < TIE, 0.5, difference > 0).mean(axis=1)  # (prompts,)
    picks = np.random.default_rng(seed).integers(len(per_prompt), size=(RESAMPLES, len(per_prompt)))
    low, high = np.quantile(per_prompt[picks].mean(axis=1), [0.025, 0.975])
    return WinRate(float(per_prompt.mean()), float(low), float(high))
