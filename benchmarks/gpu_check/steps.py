"""Time of a training step against the bare network's passes, and a profile of three steps.

``python -m benchmarks.gpu_check.steps DIR CACHE`` prints JSON for the run in DIR. The bare network is the base without
an adapter, loaded again in the same precision: forward and backward to its noisy latents, in the batches of a step.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.trainer.case import BETAS, open_training
from trainer.data.batches import Batch
from trainer.families.family import Denoiser, Family
from trainer.runtime.device import free_memory
from trainer.training.memory_plan import MemoryPlan

WARMUP, TIMED, PROFILED = 2, 5, 3


@dataclass(frozen=True)
class Measured:
    """Of a training, which is gone from the device; ``batches`` are those of one of its steps."""

    device: torch.device
    family: Family
    plan: MemoryPlan
    batches: Sequence[Batch]
    seconds: float
    profile: Mapping[str, Any]


def main(directory: Path, cache: Path) -> None:
    training = measure_training(directory, cache)
    free_memory(training.device)  # both networks at once would not fit every card on which one does
    denoiser = training.family.load_denoiser(training.device)
    denoiser.checkpoint_gradients(training.plan.gradient_checkpointing)
    bare = timed(lambda: bare_passes(denoiser, training.batches), training.device)
    found = {
        "plan": str(training.plan),
        "streamed": training.plan.streamed,
        "step_seconds": training.seconds,
        "bare_seconds": bare,
        "step_by_bare": training.seconds / bare,
    }
    print(json.dumps(found | dict(training.profile)))


def measure_training(directory: Path, cache: Path) -> Measured:
    training = open_training(directory, cache, BETAS["mapo"])
    context, steps = training.context, training.steps()
    batches, pairs = next(steps)
    training.line.add(training.advance(batches, pairs))

    def step() -> None:
        training.line.add(training.advance(*next(steps)))

    seconds = timed(step, context.device)
    found = profile_of(step, context.device)
    steps.close()  # type: ignore[attr-defined]  # a generator
    return Measured(context.device, context.family, training.plan.memory, batches, seconds, found)


def timed(act: Callable[[], None], device: torch.device) -> float:
    """Median seconds; the device has finished at each end."""
    seconds = []
    for _ in range(WARMUP + TIMED):
        wait_for(device)
        started = time.perf_counter()
        act()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARMUP:])


def bare_passes(denoiser: Denoiser, batches: Iterable[Batch]) -> None:
    for batch in batches:
        noise, timesteps = batch.noise.repeat(batch.sides, 1, 1, 1), batch.timesteps.repeat(batch.sides)
        noisy = denoiser.add_noise(batch.latents, noise, timesteps).detach().requires_grad_()
        prompt = {
            name: tensor.repeat(batch.sides, *[1] * (tensor.ndim - 1))
            for name, tensor in denoiser.condition(batch.prompt).items()
        }
        F.mse_loss(denoiser.predict(noisy, timesteps, prompt, batch.size_ids), noise).backward()  # type: ignore[no-untyped-call]


def profile_of(act: Callable[[], None], device: torch.device) -> dict[str, Any]:
    """Kernels a step and the share of the time in which the device had none to run; of a GPU alone."""
    if device.type != "cuda":
        return {"kernels_of_a_step": None, "idle_share": None}
    wait_for(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        for _ in range(PROFILED):
            act()
        wait_for(device)
        seconds = time.perf_counter() - started
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or []
        if event.device_type == DeviceType.CUDA
    ]
    share = 1 - busy(kernels) / 1e6 / seconds
    return {"kernels_of_a_step": len(kernels) // PROFILED, "idle_share": max(0.0, share)}


def busy(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of their union, in their unit: kernels of several streams overlap."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
