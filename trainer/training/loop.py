"""The training loop: steps, and every ``checkpoints.every_steps`` and after the last one a check-up.

A check-up measures the held-out pairs, tells what they show and writes a checkpoint. The adapter with the lowest
held-out objective is the one that is kept. Where check-ups are far apart, checkpoints are written in between after
``checkpoints.every_seconds``: nothing but where a run can go on depends on them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice

from trainer.data.batch_sampler import Order
from trainer.data.batches import Batch, Batches, one_ahead
from trainer.data.encoding import EncodedPair
from trainer.data.noise import keyed_seed
from trainer.evaluation.diagnostics import should_stop
from trainer.evaluation.held_out import HeldOutLosses, metrics, pairs_within_budget
from trainer.objectives.objective import Objective
from trainer.runtime.device import explain_out_of_memory
from trainer.runtime.errors import Interrupted
from trainer.sampling.samples import Samples
from trainer.spec.events import CheckpointWritten, StoppedEarly
from trainer.spec.resolved import Resolved
from trainer.training.checkpoint import Best, Checkpoint, Settled, prune, write_checkpoint
from trainer.training.progress import ProgressLine
from trainer.training.schedule import learning_rate
from trainer.training.setup import Ready
from trainer.training.step import StepRecord, training_step


def fit(ready: Ready, objective: Objective, base: HeldOutLosses, settled: Settled) -> Best:
    """Train from the last checkpoint or from the start to the last step; returns the best validated adapter.

    Raises Interrupted after writing a checkpoint, NonFiniteLoss, OutOfMemory, DiskFull.
    """
    every = ready.run.spec.checkpoints.every_steps or math.ceil(ready.run.hyperparameters.max_steps / 4)
    with explain_out_of_memory(ready.device, settled.memory.batch_size):
        batches = new_batches(ready, objective)
        return Training(ready, objective, base, settled, every, batches, samples=new_samples(ready)).run()


def new_batches(ready: Ready, objective: Objective) -> Batches:
    return Batches(
        ready.cache,
        seed=ready.run.spec.seed,
        sides=2 if objective.sees_rejected else 1,
        timestep_at=ready.family.timestep_at,
        prompt_dropout=ready.run.hyperparameters.prompt_dropout,
        empty_prompt_key=ready.encoder.prompt_key(""),
        class_images=ready.data.class_images,
        class_prompt_key=ready.data.class_prompt_key,
    )


def new_samples(ready: Ready) -> Samples | None:
    prompts, seed = ready.run.spec.sampling.prompts, ready.run.spec.sampling.seed
    if not prompts:
        return None
    return Samples(
        ready.run.directory,
        ready.artist,
        prompts,
        prompt_keys=[ready.encoder.prompt_key(prompt) for prompt in prompts],
        seeds=[keyed_seed("sample", seed, index) for index in range(len(prompts))],
        size=ready.encoder.native,
    )


@dataclass
class Training:
    """``base`` is the untrained model on the held-out draws; ``every`` counts the steps between check-ups.

    ``validated`` and ``saved`` (a step) say what was done about ``step`` already; ``saved_at`` is the monotonic time of
    the last checkpoint, or of the start.
    """

    ready: Ready
    objective: Objective
    base: HeldOutLosses
    settled: Settled
    every: int
    batches: Batches
    step: int = 0
    validated: bool = True
    saved: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    best: Best | None = None
    samples: Samples | None = None
    drawn: set[int] = field(default_factory=set)
    line: ProgressLine = field(init=False)

    def __post_init__(self) -> None:
        ready, resumed = self.ready, self.ready.resumed
        self.line = ProgressLine(ready.phases.report, ready.history, ready.device, self.asked.max_steps, self.every)
        if resumed:
            self.step, self.saved, self.validated, self.best = (
                resumed.step,
                resumed.step,
                resumed.validated,
                resumed.best,
            )

    @property
    def asked(self) -> Resolved:
        return self.ready.run.hyperparameters

    def run(self) -> Best:
        last = self.asked.max_steps
        steps = self.steps()
        try:
            self.begin()
            while True:
                self.look_up()
                if self.best is not None and (self.step == last or self.stopped_early()):
                    return self.best
                self.ready.stop.check()
                record = self.advance(*next(steps))
                self.line.add(record)
                self.ready.stop.agree(record.stop_requested)
                if self.save_due():
                    self.save_in_between()
                elif self.line.due():
                    self.line.flush(self.saved)
        except Interrupted:
            self.line.flush(self.saved)
            self.save()
            raise

    def begin(self) -> None:
        ready = self.ready
        if ready.resumed is None:
            ready.note(metrics(0, self.base, self.base, self.objective, last_good_step=0))
        if self.samples is not None and ready.world.is_main:
            self.samples.forget_after(self.step if ready.resumed else -1)  # whatever lies there is of another run
            with ready.learner.denoiser.without_adapter():
                self.draw_samples(0)
        ready.phases.enter("training")
        self.line.restart()

    def steps(self) -> Iterator[tuple[list[Batch], list[str]]]:
        """The step after this one, the next, ... and the last, loaded one step ahead.

        Of each: this process's batches, and all pairs of the step.
        """
        world = self.ready.world
        order = Order(
            self.ready.data.training,
            [pair.bucket for pair in self.ready.data.training],
            seed=self.ready.run.spec.seed,
            batch_size=self.settled.memory.batch_size * world.size,
            step_size=self.asked.step_size,
        )

        def load(numbered: tuple[int, list[list[EncodedPair]]]) -> tuple[list[Batch], list[str]]:
            step, groups = numbered
            own = [share for group in groups if (share := world.share(group))]
            batches = [self.batches.batch(pairs, step).to(self.ready.device) for pairs in own]
            return batches, [pair.id for group in groups for pair in group]

        numbered = zip(count(self.step + 1), order.steps(self.step + 1), strict=False)
        return one_ahead(load, islice(numbered, self.asked.max_steps - self.step))

    def advance(self, batches: list[Batch], pairs: list[str]) -> StepRecord:
        asked, learner = self.asked, self.ready.learner
        rate = learning_rate(
            self.step + 1,
            peak=asked.learning_rate,
            warmup_steps=asked.warmup_steps,
            max_steps=asked.max_steps,
            kind=asked.lr_scheduler,
        )
        with learner.training(self.ready.run.spec.seed, self.step + 1, self.ready.world.rank):
            record = training_step(
                learner.denoiser,
                learner.optimizer,
                batches,
                self.objective,
                step=self.step + 1,
                learning_rate=rate,
                max_grad_norm=asked.max_grad_norm,
                streamed=self.settled.memory.streamed,
                world=self.ready.world,
                pairs=pairs,
                stop_requested=self.ready.stop.requested,
            )
        self.step, self.validated = self.step + 1, False
        return record

    @cached_property
    def watched(self) -> int:
        """How many held-out pairs a check-up measures; all of them are at the start and at the end."""
        asked, available = self.ready.run.spec.validation, len(self.ready.data.held_out)
        if asked.pairs_at_checkpoints != "auto":
            return min(available, asked.pairs_at_checkpoints)
        return pairs_within_budget(
            every=self.every, step_size=self.asked.step_size, draws=asked.draws, available=available
        )

    def stopped_early(self) -> bool:
        patience = self.ready.run.spec.validation.patience
        if patience is None or not self.validated or self.best is None:
            return False
        if not should_stop(self.ready.history.rows(), patience):
            return False
        self.ready.phases.report(StoppedEarly(step=self.step, best_step=self.best.step, patience=patience))
        return True

    @property
    def is_check_up(self) -> bool:
        return self.step % self.every == 0 or self.step == self.asked.max_steps

    def look_up(self) -> None:
        """Between two steps: samples and a check-up, where they are due."""
        check_up_due, samples_due = self.is_check_up and not self.validated, self.samples_due()
        if not check_up_due and not samples_due:
            return
        self.line.flush(self.saved)
        if samples_due:
            self.draw_samples(self.step)
        if check_up_due:
            self.check_up()
        if self.step < self.asked.max_steps:
            self.ready.phases.enter("training")
            self.line.restart()

    def check_up(self) -> None:
        ready = self.ready
        ready.phases.enter("validating")
        measured = metrics(
            self.step,
            ready.measure(ready.data.held_out[: self.watched], self.settled.memory.batch_size),
            self.base,
            self.objective,
            last_good_step=self.saved,
        )
        if self.best is None or measured.objective < self.best.objective:
            self.best = Best(self.step, measured.objective, ready.learner.weights())
        ready.note(measured)
        self.validated = True
        self.save()

    def samples_due(self) -> bool:
        every = self.ready.run.spec.sampling.every_steps or self.every
        is_time = self.step % every == 0 or self.step == self.asked.max_steps
        return self.samples is not None and self.ready.world.is_main and self.step not in self.drawn and is_time

    def draw_samples(self, step: int) -> None:
        if self.samples is not None:
            self.drawn.add(step)
            self.ready.phases.enter("sampling")
            self.ready.phases.report(self.samples.write(step, self.ready.check, self.ready.phases.progress))

    def save_due(self) -> bool:
        """In between, where no check-up is about to write one. The main process alone writes, and goes by its clock."""
        every = self.ready.run.spec.checkpoints.every_seconds
        if every is None or self.is_check_up or not self.ready.world.is_main:
            return False
        return time.monotonic() - self.saved_at >= every

    def save_in_between(self) -> None:
        self.line.flush(self.saved)
        self.save()
        self.line.restart(after_check_up=False)

    def save(self) -> None:
        """Write the checkpoint of this step, if there is none yet."""
        if self.saved == self.step:
            return
        if not self.ready.world.is_main:
            self.saved = self.step
            return
        ready, folder = self.ready, self.ready.run.directory / "checkpoints"
        checkpoint = Checkpoint(
            run=ready.run.digest,
            step=self.step,
            validated=self.validated,
            adapter=ready.learner.weights(),
            optimizer=ready.learner.optimizer_state(),
            base=self.base,
            best=self.best,
            settled=self.settled,
            history=ready.history.read(),
        )
        path = write_checkpoint(folder, checkpoint)
        prune(folder, self.best.step if self.best else None)
        ready.phases.report(CheckpointWritten(step=self.step, path=str(path.relative_to(ready.run.directory))))
        self.saved, self.saved_at = self.step, time.monotonic()
