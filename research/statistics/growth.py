"""Test whether an advantage over Diffusion-DPO grows with the reference mismatch: rank correlation of domains.

They are few, so that one of them can make or undo it: it is told with each left out in turn, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from demo.emoji.domains import Name
from research.statistics.comparison import Comparison
from research.statistics.intervals import Floats, Interval
from research.trial import MethodName

FEWEST = 3  # domains of which a rank correlation says anything


@dataclass(frozen=True)
class Growth:
    """Spearman's correlation with its 95% interval over seeds and prompts, and without each domain in turn."""

    over_all: Interval
    without: dict[Name, float]

    @property
    def weakest(self) -> Name:
        """The domain on which the correlation rests most."""
        return min(self.without, key=lambda name: self.without[name])

    @property
    def holds(self) -> bool:
        """Above zero by its interval and whichever domain is left out."""
        return self.over_all.low > 0 and all(one > 0 for one in self.without.values())

    @property
    def reversed(self) -> bool:
        return self.over_all.high < 0 and all(one < 0 for one in self.without.values())


def growth(compared: Mapping[Name, Comparison], method: MethodName) -> Growth:
    """Of a method's advantage over Diffusion-DPO with the mismatch."""
    draws = np.stack([one.resampled_over_dpo[method] for one in compared.values()], axis=1)
    mismatches = np.array([1 - one.similarity for one in compared.values()])
    low, high = np.quantile([_rank_correlation(mismatches, advantages) for advantages in draws], [0.025, 0.975])
    everywhere = _correlation(compared.values(), method)
    without = {
        name: _correlation([one for other, one in compared.items() if other != name], method)
        for name in compared
        if len(compared) > FEWEST
    }
    return Growth(Interval(everywhere, float(low), float(high)), without)


def _correlation(compared: Iterable[Comparison], method: MethodName) -> float:
    compared = list(compared)
    return _rank_correlation(
        np.array([1 - one.similarity for one in compared]),
        np.array([one.means[method] - one.means["dpo"] for one in compared]),
    )


def _rank_correlation(one: Floats, other: Floats) -> float:
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])
