"""Probe the device for the memory plan: try plans on the run's largest images until one fits."""

from __future__ import annotations

from functools import partial

from trainer.data.batches import Batches
from trainer.objectives.objective import Objective
from trainer.runtime.device import (
    device_name,
    explain_out_of_memory,
    free_memory,
    memory_margin,
    memory_reserved,
)
from trainer.training.checkpoint import ResolvedPlan
from trainer.training.loop import new_batches
from trainer.training.memory_plan import MemoryPlan, first_that_fits, plan_event, plans_of_run
from trainer.training.setup import TrainingContext
from trainer.training.step import backward_joint, backward_streamed
from trainer.training.trainable import missing_state_bytes


def resolve_plan(
    context: TrainingContext, objective: Objective, beta: float | None, earlier: ResolvedPlan | None
) -> ResolvedPlan:
    """The ``earlier`` call's memory plan on the same devices, else one that fits. Raises OutOfMemory if none fits."""
    # All processes decide alike: on GPUs of several kinds a job may come back with another one in any place.
    devices = " + ".join(context.process_group.all_gather(device_name(context.device)))
    if earlier and earlier.device == devices:
        memory, measured = earlier.memory, False
    else:
        # In main memory a step that does not fit ends the process instead of raising: there the first plan is taken.
        measured = context.device.type == "cuda"
        memory = fitting_plan(context, objective, measure=measured)
    context.trainable.denoiser.checkpoint_gradients(memory.gradient_checkpointing)
    if context.run.spec.compute.compile:
        context.trainable.denoiser.compile_blocks()
    context.phases.report(plan_event(memory, context.run, measured=measured))
    return ResolvedPlan(beta, devices, memory)


def fitting_plan(context: TrainingContext, objective: Objective, *, measure: bool) -> MemoryPlan:
    process_group = context.process_group
    candidates = plans_of_run(context.run, process_group.size)
    attempt = partial(try_plan, context, objective, new_batches(context, objective))
    plan = first_that_fits(candidates, attempt) if measure else next(candidates)
    # Devices may differ: the most frugal plan that any of them needs.
    return min(process_group.all_gather(plan), key=MemoryPlan.memory_need)


def try_plan(context: TrainingContext, objective: Objective, batches: Batches, plan: MemoryPlan) -> None:
    """Run one backward pass over the largest images and discard its gradients. Raises OutOfMemory.

    The optimizer's state, which the first update adds, and a margin are reserved meanwhile.
    """
    context.stop.check()
    largest = max(context.dataset.visited, key=lambda pair: pair.bucket.width * pair.bucket.height)
    trainable = context.trainable
    trainable.denoiser.checkpoint_gradients(plan.gradient_checkpointing)
    free_memory(context.device)
    try:
        reserved = missing_state_bytes(trainable.optimizer) + memory_margin(context.device)
        with explain_out_of_memory(context.device, plan.batch_size), memory_reserved(context.device, reserved):
            batch = batches.batch([largest] * plan.batch_size, step=1).to(context.device)
            backward = backward_streamed if plan.streamed else backward_joint
            backward(trainable.denoiser, batch, objective, plan.batch_size)
    finally:
        trainable.optimizer.zero_grad(set_to_none=True)
        free_memory(context.device)
