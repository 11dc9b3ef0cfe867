"""Finding the memory plan on the device itself: the largest step that the run will take, tried."""

from __future__ import annotations

import math
from functools import partial

from trainer.data.batches import Batches
from trainer.objectives.objective import Objective
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.spec.events import MemoryPlanned
from trainer.training.checkpoint import Settled
from trainer.training.loop import new_batches
from trainer.training.memory_plan import MemoryPlan, first_that_fits, plans
from trainer.training.setup import Ready
from trainer.training.step import backward_joint, backward_streamed


def settle(ready: Ready, objective: Objective, beta: float | None) -> Settled:
    """What the last checkpoint says, else what fits this device. Raises OutOfMemory if nothing does."""
    device, asked = str(ready.device), ready.run.hyperparameters
    if ready.resumed and ready.resumed.settled.device == device:
        plan, measured = ready.resumed.settled.memory, False
    else:
        spec, share = ready.run.spec, math.ceil(asked.step_size / ready.world.size)
        candidates = plans(asked.batch_size, share, spec.compute, dropout=spec.adapter.dropout > 0)
        # In main memory a step that does not fit ends the process instead of raising: there the first plan is taken.
        measured = ready.device.type == "cuda"
        attempt = partial(try_plan, ready, objective, new_batches(ready, objective))
        plan = first_that_fits(candidates, attempt) if measured else next(candidates)
        # Devices may differ: the most frugal plan that any of them needs.
        plan = min(ready.world.gather(plan), key=MemoryPlan.appetite)
    ready.learner.denoiser.checkpoint_gradients(plan.gradient_checkpointing)
    if ready.run.spec.compute.compile:
        ready.learner.denoiser.compile_blocks()
    ready.phases.report(
        MemoryPlanned(
            step_size=asked.step_size,
            batch_size=plan.batch_size,
            gradient_checkpointing=plan.gradient_checkpointing,
            streamed=plan.streamed,
            measured=measured,
        )
    )
    return Settled(beta, device, plan)


def try_plan(ready: Ready, objective: Objective, batches: Batches, plan: MemoryPlan) -> None:
    """One backward pass over the largest images, none of it kept. Raises OutOfMemory."""
    ready.stop.check()
    largest = max(ready.data.training, key=lambda pair: pair.bucket.width * pair.bucket.height)
    denoiser = ready.learner.denoiser
    denoiser.checkpoint_gradients(plan.gradient_checkpointing)
    free_memory(ready.device)
    try:
        with explain_out_of_memory(ready.device, plan.batch_size):
            batch = batches.batch([largest] * plan.batch_size, step=1).to(ready.device)
            backward = backward_streamed if plan.streamed else backward_joint
            backward(denoiser, batch, objective, plan.batch_size)
    finally:
        ready.learner.optimizer.zero_grad(set_to_none=True)
        free_memory(ready.device)
