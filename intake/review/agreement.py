"""How far annotators agree on the pairs that several of them compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import TypeVar

from intake.pairs import PreparedPair
from intake.review.pair import Digest, digest

Value = TypeVar("Value", str, bool)
_UNIT = 16  # bytes: what was judged; those of the annotator follow


class Judges:
    """The last judgement of every annotator on every two images and prompt: who changed their mind counts once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._latest: dict[Digest, bool] = {}  # whether the one of the smaller SHA-256 is preferred

    @property
    def count(self) -> int:
        return len(self._numbers)

    def add(self, pair: PreparedPair, prompt: str) -> None:
        if pair.annotator is None or pair.rejected is None:
            return
        unit = digest(prompt, *sorted((pair.chosen, pair.rejected)))
        number = self._numbers.setdefault(pair.annotator, len(self._numbers))
        self._latest[unit + number.to_bytes(4, "big")] = pair.chosen < pair.rejected

    def units(self) -> list[Counter[bool]]:
        """The judgements of each that several annotators compared."""
        grouped = groupby(sorted(self._latest), key=lambda judged: judged[:_UNIT])
        units = (Counter(self._latest[judged] for judged in of_unit) for _, of_unit in grouped)
        return [unit for unit in units if unit.total() > 1]


def krippendorff_alpha(units: Iterable[Counter[Value]]) -> float | None:
    """Krippendorff's alpha for nominal values, of judgements by unit: 1 is full agreement, 0 what chance gives.

    It takes units with different numbers of annotators, which Cohen's and Fleiss' kappa do not (K. Krippendorff,
    Content Analysis, chapter 12). None where no unit was judged twice; 1 where all judgements are the same.
    """
    compared = [unit for unit in units if unit.total() > 1]
    total = sum(unit.total() for unit in compared)
    if total == 0:
        return None
    values: Counter[Value] = sum(compared, Counter())
    observed = sum(_disagreeing(unit) / (unit.total() - 1) for unit in compared) / total
    expected = _disagreeing(values) / (total * (total - 1))
    return 1.0 if expected == 0 else 1 - observed / expected


def _disagreeing(judged: Counter[Value]) -> int:
    """Ordered pairs of judgements that differ."""
    return judged.total() ** 2 - sum(count**2 for count in judged.values())
