"""Finding the memory plan on the device itself: the largest step that the run will take, tried."""

from __future__ import annotations

import math
from functools import partial

from trainer.data.batches import Batches
from trainer.objectives.objective import Objective
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.spec.events import MemoryPlanned
from trainer.training.checkpoint import ResolvedPlan
from trainer.training.loop import new_batches
from trainer.training.memory_plan import MemoryPlan, candidate_plans, first_that_fits
from trainer.training.setup import TrainingContext
from trainer.training.step import backward_joint, backward_streamed


def resolve_plan(context: TrainingContext, objective: Objective, beta: float | None) -> ResolvedPlan:
    """What the last checkpoint says, else what fits this device. Raises OutOfMemory if nothing does."""
    device, asked = str(context.device), context.run.hyperparameters
    if context.resumed and context.resumed.plan.device == device:
        plan, measured = context.resumed.plan.memory, False
    else:
        spec, share = context.run.spec, math.ceil(asked.effective_batch_size / context.process_group.size)
        candidates = candidate_plans(asked.batch_size, share, spec.compute, dropout=spec.adapter.dropout > 0)
        # In main memory a step that does not fit ends the process instead of raising: there the first plan is taken.
        measured = context.device.type == "cuda"
        attempt = partial(try_plan, context, objective, new_batches(context, objective))
        plan = first_that_fits(candidates, attempt) if measured else next(candidates)
        # Devices may differ: the most frugal plan that any of them needs.
        plan = min(context.process_group.all_gather(plan), key=MemoryPlan.memory_need)
    context.learner.denoiser.checkpoint_gradients(plan.gradient_checkpointing)
    if context.run.spec.compute.compile:
        context.learner.denoiser.compile_blocks()
    context.phases.report(
        MemoryPlanned(
            effective_batch_size=asked.effective_batch_size,
            batch_size=plan.batch_size,
            gradient_checkpointing=plan.gradient_checkpointing,
            streamed=plan.streamed,
            measured=measured,
        )
    )
    return ResolvedPlan(beta, device, plan)


def try_plan(context: TrainingContext, objective: Objective, batches: Batches, plan: MemoryPlan) -> None:
    """One backward pass over the largest images, none of it kept. Raises OutOfMemory."""
    context.stop.check()
    largest = max(context.data.training, key=lambda pair: pair.bucket.width * pair.bucket.height)
    denoiser = context.learner.denoiser
    denoiser.checkpoint_gradients(plan.gradient_checkpointing)
    free_memory(context.device)
    try:
        with explain_out_of_memory(context.device, plan.batch_size):
            batch = batches.batch([largest] * plan.batch_size, step=1).to(context.device)
            backward = backward_streamed if plan.streamed else backward_joint
            backward(denoiser, batch, objective, plan.batch_size)
    finally:
        context.learner.optimizer.zero_grad(set_to_none=True)
        free_memory(context.device)
