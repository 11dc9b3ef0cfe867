"""The processes that train one adapter together, as ``accelerate launch`` starts them: one for each GPU.

Each takes a share of every step's pairs; gradients are added up, so that all make the same update. The main process
alone tells what happens and writes checkpoints and output; all read the same run directory and cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")

# Longer than one process may be busy alone: drawing samples, exporting.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part; may be empty."""
        return items[self.rank :: self.size]

    def add_up(self, tensor: Tensor) -> None:
        """In place, the sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def gather(self, value: Item) -> list[Item]:
        """Every process's value, by rank; all wait for the last."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, value: bool) -> bool:
        return any(self.gather(value))

    def main_first(self, act: Callable[[], Item]) -> Item:
        """Every process acts, the others after the main one has."""
        if self.is_main:
            result = act()
            self.gather(None)
        else:
            self.gather(None)
            result = act()
        return result


ALONE = World()


@contextmanager
def join_world() -> Iterator[World]:
    """The world that the environment speaks of; ALONE where it speaks of none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)
    try:
        yield World(state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()
