"""Means with 95% intervals over training seeds and prompts: both are resampled, a prompt with all its images.

The new subject's test prompts begin with the one that it was learnt with. It is drawn like the others, and what is
published leaves it out: held-out figures are of held-out prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.emoji.domains import SUBJECT_PROMPT, SUBJECT_PROMPTS
from demo.win_rate import TIE
from research.trial import Result, Trial

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


def wilson(right: int, of: int) -> Interval:
    """The 95% interval of a share (Wilson 1927), which is not empty where all are right."""
    share, z = right / of, 1.959964
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    reach = z / (1 + z**2 / of) * (share * (1 - share) / of + z**2 / (4 * of**2)) ** 0.5
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def success(results: Sequence[Result], *, learnt_too: bool = False) -> Floats:
    """(training seeds, prompts), as all below; ``learnt_too``: also the prompt that the new subject was learnt with."""
    return _by_prompt(_samples([result.success for result in results], results[0].trial, learnt_too=learnt_too))


def base_success(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.base_success for result in results], results[0].trial))


def domain_score(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.domain_score for result in results], results[0].trial))


def base_domain_score(results: Sequence[Result]) -> Floats:
    return _by_prompt(_samples([result.base_domain_score for result in results], results[0].trial))


def fidelity(results: Sequence[Result]) -> Floats:
    """For the new subject of other prompts, none of which was learnt."""
    return _by_prompt(np.array([result.fidelity for result in results], dtype=np.float64))


def base_fidelity(results: Sequence[Result]) -> Floats:
    return _by_prompt(np.array([result.base_fidelity for result in results], dtype=np.float64))


def wins(results: Sequence[Result]) -> Floats:
    """The share of a prompt's samples whose success is above the base's of the same noise, ties one half."""
    ours = _samples([result.success for result in results], results[0].trial)
    base = _samples([result.base_success for result in results], results[0].trial)
    return _by_prompt(np.where(np.abs(ours - base) < TIE, 0.5, ours > base))


def _samples(rows: Sequence[list[list[float]]], trial: Trial, *, learnt_too: bool = False) -> Floats:
    """(training seeds, sampling seeds, prompts that were not trained on)."""
    values: Floats = np.array(rows, dtype=np.float64)
    if trial.domain != "personalization" or learnt_too:
        return values
    return values[:, :, [prompt != SUBJECT_PROMPT for prompt in SUBJECT_PROMPTS[trial.split]]]


def _by_prompt(samples: Floats) -> Floats:
    """(training seeds, prompts): images of one prompt are too alike to be counted as independent."""
    means: Floats = samples.mean(axis=1)
    return means
