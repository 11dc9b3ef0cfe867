"""Means with 95% intervals over training seeds and prompts: both are resampled, a prompt with all its images."""

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
    """Of (training seeds, prompts): percentile bootstrap over rows and columns independently."""
    low, high = np.quantile(resampled(values), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def resampled(values: Floats) -> Floats:
    """(RESAMPLES,) means of (training seeds, prompts), both drawn with replacement; always the same draws."""
    seeds, prompts = values.shape
    chance = np.random.default_rng(0)
    rows = chance.integers(seeds, size=(RESAMPLES, seeds))
    columns = chance.integers(prompts, size=(RESAMPLES, prompts))
    means: Floats = values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    return means


def success(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.success for result in results]))


def base_success(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.base_success for result in results]))


def domain_score(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.domain_score for result in results]))


def fidelity(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.fidelity for result in results]))


def wins(results: Sequence[Result]) -> Floats:
    """The share of a prompt's samples whose success is above the base's of the same noise, ties one half."""
    ours = _samples([result.success for result in results])
    base = _samples([result.base_success for result in results])
    return _by_prompt(np.where(np.abs(ours - base) < TIE, 0.5, ours > base))


def _samples(rows: Sequence[list[list[float]]]) -> Floats:
    """(training seeds, sampling seeds, prompts)."""
    return np.array(rows, dtype=np.float64)


def _by_prompt(samples: Floats) -> Floats:
    """(training seeds, prompts): images of one prompt are too alike to be counted as independent."""
    means: Floats = samples.mean(axis=1)
    return means
