"""The batch sampler: a shuffle keyed by (seed, epoch) decides which pairs make up which step."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class BatchSampler(Generic[Item]):
    """Steps over ``items``; items of equal ``shapes[i]`` can share a forward pass.

    A step takes ``effective_batch_size`` items, the last of an epoch possibly fewer. Every item comes once an epoch.
    Items of one shape stay together where the shuffle allows it, so that a step rarely needs further passes.
    """

    items: Sequence[Item]
    shapes: Sequence[Hashable]
    seed: int
    batch_size: int
    effective_batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.items) / self.effective_batch_size)

    def steps(self, first: int) -> Iterator[list[list[Item]]]:
        """From step ``first`` (1, 2, ...) on, without end: each step's forward passes, of one shape each."""
        epoch, index = divmod(first - 1, self.steps_per_epoch)
        while True:
            for chunk in self._epoch(epoch)[index:]:
                yield list(self._batches(chunk))
            epoch, index = epoch + 1, 0

    def visited(self, steps: int) -> list[Item]:
        """The items that steps 1 to ``steps`` take, each once, in the order of ``items``."""
        if steps >= self.steps_per_epoch:
            return list(self.items)
        return [self.items[position] for position in sorted(chain.from_iterable(self._epoch(0)[:steps]))]

    def _epoch(self, epoch: int) -> list[list[int]]:
        shuffle = random.Random(hashlib.blake2b(repr((self.seed, epoch)).encode(), digest_size=8).digest())
        positions = list(range(len(self.items)))
        shuffle.shuffle(positions)
        rank = {shape: index for index, shape in enumerate(dict.fromkeys(self.shapes[at] for at in positions))}
        positions.sort(key=lambda at: rank[self.shapes[at]])  # stable: shuffled within a shape
        chunks = [
            positions[start : start + self.effective_batch_size]
            for start in range(0, len(positions), self.effective_batch_size)
        ]
        shuffle.shuffle(chunks)
        return chunks

    def _batches(self, chunk: list[int]) -> Iterator[list[Item]]:
        by_shape: dict[Hashable, list[Item]] = {}
        for position in chunk:
            by_shape.setdefault(self.shapes[position], []).append(self.items[position])
        for alike in by_shape.values():
            for start in range(0, len(alike), self.batch_size):
                yield alike[start : start + self.batch_size]
