"""Memory plans: how many pairs a forward pass takes, and which techniques save memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainer.run_directory.run import Run
from trainer.runtime.errors import OutOfMemory
from trainer.runtime.hardware_errors import release_frames
from trainer.spec.events import MemoryPlanned
from trainer.spec.run import Compute
from trainer.spec.strict import Auto


@dataclass(frozen=True)
class MemoryPlan:
    """``batch_size`` pairs a forward pass; ``streamed``: one side of them at a time."""

    batch_size: int
    gradient_checkpointing: bool
    streamed: bool

    def __str__(self) -> str:
        checkpointing = ", gradient checkpointing" if self.gradient_checkpointing else ""
        return f"batch_size {self.batch_size}{checkpointing}{', streamed pairs' if self.streamed else ''}"

    def memory_need(self) -> tuple[bool, bool, int]:
        """Lower for plans that are tried later."""
        return not self.streamed, not self.gradient_checkpointing, self.batch_size


def candidate_plans(
    batch_size: int | Auto, effective_batch_size: int, compute: Compute, *, dropout: bool = False
) -> Iterator[MemoryPlan]:
    """What may be tried, the fastest first.

    Smaller passes cost least; checkpointing and streaming cost one more forward pass each, of which checkpointing saves
    more in deep networks (docs/decisions/0007-memory.md). What the user fixed stays as it is. With ``dropout`` in the
    adapter nothing is streamed: its two passes would be of two networks.
    """
    sizes = list(_halvings(effective_batch_size)) if batch_size == "auto" else [batch_size]
    may_stream = [False] if dropout else [False, True]
    streamed = may_stream if compute.pairs == "auto" else [compute.pairs == "streamed"]
    checkpointing = [False, True] if compute.gradient_checkpointing == "auto" else [compute.gradient_checkpointing]
    for is_streamed in streamed:
        for is_checkpointing in checkpointing:
            for size in sizes:
                yield MemoryPlan(size, is_checkpointing, is_streamed)


def next_plan(plan: MemoryPlan, candidates: Iterator[MemoryPlan]) -> MemoryPlan | None:
    """The fastest that needs less memory; None if there is none."""
    return next((one for one in candidates if one.memory_need() < plan.memory_need()), None)


def plans_of_run(run: Run, processes: int) -> Iterator[MemoryPlan]:
    """The candidates of a run whose steps so many processes share."""
    spec, hyperparameters = run.spec, run.hyperparameters
    pairs = math.ceil(hyperparameters.effective_batch_size / processes)
    return candidate_plans(hyperparameters.batch_size, pairs, spec.compute, dropout=spec.adapter.dropout > 0)


def plan_event(plan: MemoryPlan, run: Run, *, measured: bool) -> MemoryPlanned:
    return MemoryPlanned(
        effective_batch_size=run.hyperparameters.effective_batch_size,
        batch_size=plan.batch_size,
        gradient_checkpointing=plan.gradient_checkpointing,
        streamed=plan.streamed,
        measured=measured,
    )


def _halvings(size: int) -> Iterator[int]:
    while size > 1:
        yield size
        size = (size + 1) // 2
    yield 1


def first_that_fits(candidates: Iterator[MemoryPlan], attempt: Callable[[MemoryPlan], None]) -> MemoryPlan:
    """``attempt`` raises OutOfMemory for a plan that does not fit; so does this if none does.

    Each attempt begins with the memory of those before it released.
    """
    failure: OutOfMemory | None = None
    for plan in candidates:
        try:
            attempt(plan)
        except OutOfMemory as error:
            release_frames(error)
            failure = error
        else:
            return plan
    raise failure if failure is not None else AssertionError("there is always a plan to try")
