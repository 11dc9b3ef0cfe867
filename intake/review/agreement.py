"""How far annotators agree on the pairs that several of them compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def krippendorff_alpha(units: Iterable[Counter[str]]) -> float | None:
    """Krippendorff's alpha for nominal values, of judgements by unit: 1 is full agreement, 0 what chance gives.

    It takes units with different numbers of annotators, which Cohen's and Fleiss' kappa do not (K. Krippendorff,
    Content Analysis, chapter 12). None where no unit was judged twice; 1 where all judgements are the same.
    """
    compared = [unit for unit in units if unit.total() > 1]
    total = sum(unit.total() for unit in compared)
    if total == 0:
        return None
    values: Counter[str] = sum(compared, Counter())
    observed = sum(_disagreeing(unit) / (unit.total() - 1) for unit in compared) / total
    expected = _disagreeing(values) / (total * (total - 1))
    return 1.0 if expected == 0 else 1 - observed / expected


def _disagreeing(judged: Counter[str]) -> int:
    """Ordered pairs of judgements that differ."""
    return judged.total() ** 2 - sum(count**2 for count in judged.values())
