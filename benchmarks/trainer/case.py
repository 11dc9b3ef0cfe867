"""One case in a process of its own: ``python -m benchmarks.trainer.case CASE SUBJECT STEPS FOLDER`` prints JSON.

Peak memory is the process's largest resident size above what it had once everything was imported: the network, the
adapter, activations, and for recipes also the encoders that ran before, as in a real run.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.trainer.plain import plain_step
from benchmarks.trainer.subjects import BATCH, base_of, write_run
from trainer.cache.cache import Cache
from trainer.data.batches import Batch
from trainer.data.encoding import pixels
from trainer.recipe import measure_base, objective_of, requirements_of
from trainer.run_directory.run import read_run
from trainer.runtime.distributed import SINGLE_PROCESS
from trainer.runtime.event_stream import PhaseReporter
from trainer.runtime.signals import StopRequest
from trainer.training.loop import Training, new_batches
from trainer.training.memory_probe import resolve_plan
from trainer.training.setup import TrainingContext, prepare

# What a run imports as it goes is imported before memory is measured.
LIBRARIES = (
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "trainer.families.sdxl",
    "torch._dynamo",
)
WARMUP = 2
BETAS: dict[str, float | None] = {"mapo": 64.0, "dpo": 5000.0, "dco": 1000.0, "sft": None}
OPTIONS: dict[str, dict[str, Any]] = {
    "streamed": {"pairs": "streamed"},
    "checkpointing": {"gradient_checkpointing": True},
    "compiled": {"compile": True},
}


def main(case: str, subject: str, steps: int, folder: Path) -> None:
    torch.manual_seed(0)
    for library in LIBRARIES:
        import_module(library)
    before = resident()
    base = base_of(subject, folder / "base")
    method = case if case in BETAS else "mapo"
    hyperparameters = {"max_steps": 10_000} | ({"preset": "style"} if method == "mapo" else {})
    directory = write_run(folder / "run", subject, base, method, hyperparameters, compute=OPTIONS.get(case, {}))
    if case == "plain":
        acts = {"plain": plain_step(read_run(directory), base, BATCH[subject])}
    else:
        acts = recipe_acts(case, method, directory, folder / "cache")
    seconds = in_turns(acts, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "seconds": {name: statistics.median(times) for name, times in seconds.items()},
                "ratios": ratios(seconds),
                "memory_bytes": peak - before,
            }
        )
    )


def open_training(directory: Path, cache: Path, beta: float | None) -> Training:
    """A run ready for its first step, set up as ``trainer.recipe.train`` does."""
    run = read_run(directory)
    context, evaluator, _, _ = prepare(
        run,
        Cache(cache),
        requirements_of(run.spec.method),
        PhaseReporter(lambda _: None),
        StopRequest(),
        SINGLE_PROCESS,
    )
    objective = objective_of(run.spec.method, beta, context.family.num_train_timesteps)
    base = measure_base(evaluator, context.dataset.held_out)
    plan = resolve_plan(context, objective, None, None)
    return Training(context, evaluator, objective, base, plan, 10_000, new_batches(context, objective))


def recipe_acts(case: str, method: str, directory: Path, cache: Path) -> dict[str, Callable[[], None]]:
    training = open_training(directory, cache, BETAS[method])
    context, steps = training.context, training.steps()
    first, _ = next(steps)
    if case == "channels last":
        context.trainable.denoiser.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub

    def step() -> None:
        training.line.add(training.advance(*next(steps)))
        if training.line.due():
            training.line.flush(last_good_step=0)

    if case == "bare":
        return {"bare": bare(context, first[0]), "step": step}
    if case == "uncached":
        return {"uncached": uncached(context, step)}
    return {case: step}


def bare(context: TrainingContext, batch: Batch) -> Callable[[], None]:
    """The network alone, its adapter included, on inputs made beforehand."""
    denoiser = context.trainable.denoiser
    noise, timesteps = batch.noise.repeat(2, 1, 1, 1), batch.timesteps.repeat(2)
    noisy = denoiser.add_noise(batch.latents, noise, timesteps)
    prompt = {name: torch.cat([tensor, tensor]) for name, tensor in batch.prompt.items()}

    def act() -> None:
        F.mse_loss(denoiser.predict(noisy, timesteps, prompt, batch.size_ids), noise).backward()  # type: ignore[no-untyped-call]
        context.trainable.optimizer.zero_grad(set_to_none=True)

    return act


def uncached(context: TrainingContext, step: Callable[[], None]) -> Callable[[], None]:
    """The same step, with a batch's images and prompts through the encoders before it."""
    encoders = context.family.load_encoders(context.device)
    pairs = list(zip(context.dataset.training, context.run.training, strict=True))[
        : context.run.hyperparameters.effective_batch_size
    ]

    def act() -> None:
        encoders.encode_prompts([files.prompt for _, files in pairs])
        encoders.encode_images(torch.stack([pixels(image) for pair, _ in pairs for image in pair.images]))
        step()

    return act


def in_turns(acts: dict[str, Callable[[], None]], steps: int) -> dict[str, list[float]]:
    """Seconds of each, alternately, so that other load on the machine meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(WARMUP + steps):
        for name, act in acts.items():
            started = time.perf_counter()
            act()
            seconds[name].append(time.perf_counter() - started)
    return {name: times[WARMUP:] for name, times in seconds.items()}


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    """Of the second to the first, turn by turn; empty for one alone."""
    if len(seconds) == 1:
        return []
    first, second = seconds.values()
    return [later / earlier for earlier, later in zip(first, second, strict=True)]


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
