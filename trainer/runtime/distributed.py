"""The group of processes that train one adapter together: ``accelerate launch`` starts one for each GPU.

Each process takes a shard of every step's pairs. Gradients are summed, so all processes make the same update. The main
process alone reports events and writes checkpoints and output. All read the same run directory and cache.
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

# Longer than one process may work while the others wait: sampling, exporting.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class ProcessGroup:
    """``rank`` is this process's number, ``size`` how many there are. A group of one communicates with nobody."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of ``items``; may be empty."""
        return items[self.rank :: self.size]

    def all_reduce(self, tensor: Tensor) -> None:
        """In place, the sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def all_gather(self, value: Item) -> list[Item]:
        """Every process's value, by rank; all wait for the last."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, value: bool) -> bool:
        return any(self.all_gather(value))

    def main_first(self, act: Callable[[], Item]) -> Item:
        """Every process acts, the others after the main one has."""
        if self.is_main:
            result = act()
            self.all_gather(None)
        else:
            self.all_gather(None)
            result = act()
        return result


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """The group that the environment names (WORLD_SIZE, RANK); SINGLE_PROCESS without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)
    try:
        yield ProcessGroup(state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()
