"""MaPO on a LoRA adapter: load, cache, train and validate, export.

Every ``checkpoints.every_steps`` and after the last step the held-out pairs are measured and a checkpoint is written;
the adapter that is exported is the one with the lowest held-out objective. The base is measured too, as step 0, but
is nothing to export.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

import torch

from trainer.batches import Batch, one_ahead, training_batch
from trainer.cache import Cache
from trainer.checkpoint import Best, Checkpoint, newest_checkpoint, prune, write_checkpoint
from trainer.device import choose_device, explain_out_of_memory, free_memory
from trainer.encoding import EncodedPair, Encoding, encode
from trainer.errors import Interrupted
from trainer.export import export
from trainer.families import open_family
from trainer.history import History
from trainer.interrupt import StopRequest
from trainer.learner import Learner, new_learner
from trainer.objectives.mapo import paper_loss, reference_code_loss
from trainer.order import Order
from trainer.progress import ProgressLine
from trainer.reporting import Phases, Report
from trainer.rundir import Run
from trainer.schedule import learning_rate
from trainer.spec.events import CheckpointWritten, Done, Metrics, Started, Warned
from trainer.spec.methods import Resolved
from trainer.step import Objective, training_step
from trainer.validation import HeldOutLosses, fixed_batches, held_out_losses, metrics, selected

HELD_OUT_WARNINGS = {
    "pair": "All pairs have the same prompt: validation pairs share it with training.",
    "nothing": "There is one pair only: it is trained on and validated on.",
}


def train(run: Run, cache_folder: Path, phases: Phases, stop: StopRequest) -> Done:
    """Raises Interrupted after writing a checkpoint; call again to go on."""
    asked, spec, report = run.hyperparameters, run.spec, phases.report
    cache = Cache(cache_folder)
    device = choose_device()
    resumed = newest_checkpoint(
        run.directory / "checkpoints", run.digest, lambda code, text: report(Warned(code=code, message=text))
    )
    family = open_family(spec.base)
    report(
        Started(
            hyperparameters=asked,
            training_pairs=len(run.training),
            validation_pairs=min(len(run.validation), spec.validation.max_pairs),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            resumed_from_step=resumed.step if resumed else 0,
        )
    )
    if run.held_out_by in HELD_OUT_WARNINGS:
        report(Warned(code="weak_validation", message=HELD_OUT_WARNINGS[run.held_out_by]))
    stop.check()

    phases.enter("caching")
    encoding = encode(family, cache, run.training, run.validation, device=device, stop=stop, progress=phases.progress)
    free_memory(device)
    stop.check()

    phases.enter("loading")
    learner = new_learner(family, spec, device, weight_decay=asked.weight_decay)
    if resumed:
        learner.load_weights(resumed.adapter)
        learner.load_optimizer_state(resumed.optimizer)
    history = History(run.directory / "metrics.jsonl")
    history.restore(resumed.history if resumed else b"")
    held_out = selected(encoding.validation, spec.validation.max_pairs)
    measure = partial(
        held_out_losses,
        learner.denoiser,
        held_out,
        cache,
        draws=spec.validation.draws,
        num_train_timesteps=family.num_train_timesteps,
        batch_size=asked.batch_size,
        device=device,
        stop=stop,
        progress=phases.progress,
    )
    load = step_loader(encoding, cache, asked, spec.seed, family.num_train_timesteps, device)
    objective = objective_of(asked, family.num_train_timesteps)
    with explain_out_of_memory(device, asked.batch_size):
        best = fit(run, learner, load, measure, objective, device, resumed, history, phases, stop)

    phases.enter("exporting")
    learner.load_weights(best.adapter)
    (fixed,) = fixed_batches(held_out[:1], cache, [family.num_train_timesteps // 2])
    return export(run, learner.denoiser, fixed.to(device), metrics=history.read(), best_step=best.step)


def objective_of(asked: Resolved, num_train_timesteps: int) -> Objective:
    if asked.form == "paper":
        return partial(paper_loss, beta=asked.beta)
    return partial(reference_code_loss, beta=asked.beta, num_train_timesteps=num_train_timesteps)


def step_loader(
    encoding: Encoding, cache: Cache, asked: Resolved, seed: int, num_train_timesteps: int, device: torch.device
) -> Callable[[int], Iterator[list[Batch]]]:
    """A function of the first step, giving the batches of that step, the next, ... and of the last."""
    order = Order(
        encoding.training,
        [pair.bucket for pair in encoding.training],
        seed=seed,
        batch_size=asked.batch_size,
        step_size=asked.batch_size * asked.gradient_accumulation,
    )

    def load(numbered: tuple[int, list[list[EncodedPair]]]) -> list[Batch]:
        step, groups = numbered
        return [
            training_batch(
                pairs,
                cache,
                empty_prompt_key=encoding.empty_prompt_key,
                seed=seed,
                step=step,
                num_train_timesteps=num_train_timesteps,
                prompt_dropout=asked.prompt_dropout,
            ).to(device)
            for pairs in groups
        ]

    def from_step(first: int) -> Iterator[list[Batch]]:
        steps = zip(count(first), order.steps(first), strict=False)
        return one_ahead(load, islice(steps, asked.max_steps + 1 - first))

    return from_step


def fit(
    run: Run,
    learner: Learner,
    load: Callable[[int], Iterator[list[Batch]]],
    measure: Callable[[], HeldOutLosses],
    objective: Objective,
    device: torch.device,
    resumed: Checkpoint | None,
    history: History,
    phases: Phases,
    stop: StopRequest,
) -> Best:
    """Train from ``resumed`` or from the start to the last step; returns the best validated adapter."""
    asked = run.hyperparameters
    every = run.spec.checkpoints.every_steps or math.ceil(asked.max_steps / 4)
    line = ProgressLine(phases.report, history, device, asked.max_steps)
    if resumed:
        step, validated, base, best = resumed.step, resumed.validated, resumed.base, resumed.best
    else:
        phases.enter("validating")
        with learner.denoiser.without_adapter():
            step, validated, base, best = 0, True, measure(), None
        note(metrics(0, base, base, objective, last_good_step=0), phases.report, history)
    saved, last = step, asked.max_steps

    phases.enter("training")
    batches_of_steps = load(step + 1)
    line.restart()
    try:
        while True:
            if not validated and (step % every == 0 or step == last):
                line.flush(saved)
                phases.enter("validating")
                measured = metrics(step, measure(), base, objective, last_good_step=saved)
                if best is None or measured.objective < best.objective:
                    best = Best(step, measured.objective, learner.weights())
                note(measured, phases.report, history)
                validated = True
                saved = save(run, step, validated, learner, base, best, history, phases.report)
                if step < last:
                    phases.enter("training")
                    line.restart()
            if step == last and best is not None:
                return best
            stop.check()
            batches = next(batches_of_steps)
            rate = learning_rate(
                step + 1,
                peak=asked.learning_rate,
                warmup_steps=asked.warmup_steps,
                max_steps=asked.max_steps,
                kind=asked.lr_scheduler,
            )
            record = training_step(
                learner.denoiser,
                learner.optimizer,
                batches,
                objective,
                step=step + 1,
                learning_rate=rate,
                max_grad_norm=asked.max_grad_norm,
            )
            line.add(record)
            step, validated = step + 1, False
            if line.due():
                line.flush(saved)
    except Interrupted:
        line.flush(saved)
        if step > saved:
            save(run, step, validated, learner, base, best, history, phases.report)
        raise


def note(measured: Metrics, report: Report, history: History) -> None:
    report(measured)
    history.append([{"kind": "validation", **measured.model_dump(exclude={"event"})}])


def save(
    run: Run,
    step: int,
    validated: bool,
    learner: Learner,
    base: HeldOutLosses,
    best: Best | None,
    history: History,
    report: Report,
) -> int:
    """Write the checkpoint of ``step``, which is returned."""
    folder = run.directory / "checkpoints"
    path = write_checkpoint(
        folder,
        Checkpoint(
            run.digest, step, validated, learner.weights(), learner.optimizer_state(), base, best, history.read()
        ),
    )
    prune(folder, best.step if best else None)
    report(CheckpointWritten(step=step, path=str(path.relative_to(run.directory))))
    return step
