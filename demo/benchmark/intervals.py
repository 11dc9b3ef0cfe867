"""Means with 95% intervals over training seeds and prompts: both are resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.benchmark.trial import Result
from demo.win_rate import TIE

RESAMPLES = 4000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(values: Floats) -> Interval:
    """Of (training seeds, images): percentile bootstrap over rows and columns independently, always the same one."""
    seeds, images = values.shape
    chance = np.random.default_rng(0)
    rows = chance.integers(seeds, size=(RESAMPLES, seeds))
    columns = chance.integers(images, size=(RESAMPLES, images))
    means = values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def success(results: Sequence[Result]) -> Floats:
    return _stacked([result.success for result in results])


def domain_score(results: Sequence[Result]) -> Floats:
    return _stacked([result.domain_score for result in results])


def fidelity(results: Sequence[Result]) -> Floats:
    return _stacked([result.fidelity for result in results])


def wins(results: Sequence[Result]) -> Floats:
    """1 where a sample's success is above the base's of the same prompt and noise, ties one half."""
    ours, base = success(results), _stacked([result.base_success for result in results])
    return np.where(np.abs(ours - base) < TIE, 0.5, ours > base)


def _stacked(rows: Sequence[list[list[float]]]) -> Floats:
    """(training seeds, images), a column for each prompt and sampling seed."""
    return np.stack([np.asarray(one, dtype=np.float64).ravel() for one in rows])
