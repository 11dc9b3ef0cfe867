"""The training loop: steps, evaluations and checkpoints.

An evaluation is due every ``checkpoints.every_steps`` steps and after the last one: it measures held-out pairs, reports
the metrics and writes a checkpoint. The adapter with the lowest held-out objective is exported. Between
evaluations, the loop writes checkpoints every ``checkpoints.every_seconds``: they decide only where a run can resume.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count, islice

from trainer.data.batches import Batch, Batches, prefetch
from trainer.data.encoding import EncodedPair
from trainer.data.noise import keyed_seed
from trainer.data.pairs import new_batch_sampler
from trainer.evaluation.diagnostics import should_stop
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.held_out import HeldOutLosses, metrics, pairs_within_budget
from trainer.objectives.objective import Objective
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.runtime.errors import Interrupted, OutOfMemory
from trainer.runtime.hardware_errors import release_frames
from trainer.sampling.samples import Samples
from trainer.spec.events import CheckpointWritten, StoppedEarly, Warned
from trainer.spec.resolved import Resolved
from trainer.training.checkpoint import BestAdapter, ResolvedPlan, TrainingState, prune, write_checkpoint
from trainer.training.memory_plan import next_plan, plan_event, plans_of_run
from trainer.training.progress import ProgressReporter
from trainer.training.schedule import learning_rate
from trainer.training.setup import TrainingContext
from trainer.training.step import GradientOverflow, GradientScale, StepRecord, training_step


def fit(
    context: TrainingContext,
    evaluator: Evaluator,
    objective: Objective,
    base: HeldOutLosses,
    plan: ResolvedPlan,
    resumed: TrainingState | None,
) -> tuple[BestAdapter, ResolvedPlan]:
    """Train from ``resumed`` or from the start to the last step.

    Returns the best evaluated adapter, and the plan at the end, which a lack of memory may have changed.
    Raises Interrupted after writing a checkpoint, NonFiniteLoss, OutOfMemory, DiskFull.
    """
    every = context.run.spec.checkpoints.every_steps or math.ceil(context.run.hyperparameters.max_steps / 4)
    with explain_out_of_memory(context.device, plan.memory.batch_size):
        batches = new_batches(context, objective)
        samples = new_samples(context)
        training = Training(context, evaluator, objective, base, plan, every, batches, resumed, samples)
        return training.run(), training.plan


def new_batches(context: TrainingContext, objective: Objective) -> Batches:
    return Batches(
        context.encoder.cache,
        seed=context.run.spec.seed,
        sides=2 if objective.uses_rejected else 1,
        timestep_at=context.family.timestep_at,
        prompt_dropout=context.run.hyperparameters.prompt_dropout,
        empty_prompt_key=context.encoder.prompt_key(""),
        class_images=context.dataset.class_images,
        class_prompt_key=context.dataset.class_prompt_key,
    )


def new_samples(context: TrainingContext) -> Samples | None:
    prompts, seed = context.run.spec.sampling.prompts, context.run.spec.sampling.seed
    if not prompts:
        return None
    return Samples(
        context.run.directory,
        context.sampler,
        prompts,
        prompt_keys=[context.encoder.prompt_key(prompt) for prompt in prompts],
        seeds=[keyed_seed("sample", seed, index) for index in range(len(prompts))],
        size=context.encoder.native,
    )


@dataclass
class Training:
    """``base`` is the untrained model on the held-out draws; ``every`` counts the steps between evaluations.

    ``validated`` says whether ``step`` was evaluated, ``saved`` is the step of the last checkpoint, and ``saved_at``
    its monotonic time, or that of the start.
    """

    context: TrainingContext
    evaluator: Evaluator
    objective: Objective
    base: HeldOutLosses
    plan: ResolvedPlan
    every: int
    batches: Batches
    resumed: TrainingState | None = None
    samples: Samples | None = None
    step: int = 0
    validated: bool = True
    saved: int = 0
    saved_at: float = field(default_factory=time.monotonic)
    best: BestAdapter | None = None
    sampled_steps: set[int] = field(default_factory=set)
    gradient_scale: GradientScale = field(default_factory=GradientScale)
    line: ProgressReporter = field(init=False)
    loaded: Iterator[tuple[list[Batch], list[str]]] = field(init=False)

    def __post_init__(self) -> None:
        context, resumed = self.context, self.resumed
        self.line = ProgressReporter(
            context.phases.report, context.metrics_log, context.device, self.hyperparameters.max_steps, self.every
        )
        if resumed:
            self.step, self.saved, self.validated, self.best = (
                resumed.step,
                resumed.step,
                resumed.validated,
                resumed.best,
            )
            self.gradient_scale = replace(resumed.gradient_scale)

    @property
    def hyperparameters(self) -> Resolved:
        return self.context.run.hyperparameters

    def run(self) -> BestAdapter:
        last = self.hyperparameters.max_steps
        try:
            self.begin()
            self.loaded = self.steps()
            while True:
                self.sample_and_evaluate_if_due()
                if self.best is not None and (self.step == last or self.stopped_early()):
                    return self.best
                self.context.stop.check()
                record = self.next_step()
                self.line.add(record)
                self.context.stop.agree(record.stop_requested)
                if self.save_due():
                    self.save_between_evaluations()
                elif self.line.due():
                    self.line.flush(self.saved)
        except Interrupted:
            self.line.flush(self.saved)
            self.save()
            raise

    def begin(self) -> None:
        context = self.context
        if self.resumed is None:
            self.evaluator.record(
                metrics(
                    0, self.base, self.base, self.objective, weights=context.dataset.held_out_weights, last_good_step=0
                )
            )
        if self.samples is not None and context.process_group.is_main:
            self.samples.remove_after(self.step if self.resumed else -1)  # earlier files are another run's
            with context.trainable.denoiser.without_adapter():
                self.write_samples(0)
        context.phases.enter("training")
        self.line.restart()

    def steps(self) -> Iterator[tuple[list[Batch], list[str]]]:
        """The step after this one, the next, ... and the last, loaded one step ahead.

        Of each: this process's batches, and all pairs of the step.
        """
        process_group = self.context.process_group
        batch_size = self.plan.memory.batch_size * process_group.size
        order = new_batch_sampler(self.context.dataset.training, self.context.run, batch_size)

        def load(numbered: tuple[int, list[list[EncodedPair]]]) -> tuple[list[Batch], list[str]]:
            step, groups = numbered
            own = [share for group in groups if (share := process_group.shard(group))]
            batches = [self.batches.batch(pairs, step).to(self.context.device) for pairs in own]
            return batches, [pair.id for group in groups for pair in group]

        numbered = zip(count(self.step + 1), order.steps(self.step + 1), strict=False)
        return prefetch(load, islice(numbered, self.hyperparameters.max_steps - self.step), self.context.device)

    def next_step(self) -> StepRecord:
        """If memory runs out before the update, the same step by the next memory plan: its draws are keyed.

        Raises OutOfMemory if no plan is left.
        """
        while True:
            try:
                with explain_out_of_memory(self.context.device, self.plan.memory.batch_size):
                    batches, pairs = next(self.loaded)
                return self.advance(batches, pairs)
            except OutOfMemory as error:
                release_frames(error)
                failure = error
            batches = []
            self.use_next_plan(failure)

    def use_next_plan(self, failure: OutOfMemory) -> None:
        context, before = self.context, self.plan.memory
        memory = next_plan(before, plans_of_run(context.run, context.process_group.size))
        if memory is None:
            raise failure
        context.trainable.denoiser.checkpoint_gradients(memory.gradient_checkpointing)
        self.plan = replace(self.plan, memory=memory)
        self.loaded = self.steps()
        free_memory(context.device)
        message = f"Memory ran out in step {self.step + 1} with {before}. The run repeats the step with {memory}."
        context.phases.report(Warned(code="memory_plan_changed", message=f"{message} It trains the same, but slower."))
        context.phases.report(plan_event(memory, context.run, measured=True))

    def advance(self, batches: list[Batch], pairs: list[str]) -> StepRecord:
        options, trainable = self.hyperparameters, self.context.trainable
        rate = learning_rate(
            self.step + 1,
            peak=options.learning_rate,
            warmup_steps=options.warmup_steps,
            max_steps=options.max_steps,
            kind=options.lr_scheduler,
        )
        take = partial(
            training_step,
            trainable.denoiser,
            trainable.optimizer,
            batches,
            self.objective,
            step=self.step + 1,
            learning_rate=rate,
            max_grad_norm=options.max_grad_norm,
            streamed=self.plan.memory.streamed,
            process_group=self.context.process_group,
            pairs=pairs,
            stop_requested=self.context.stop.requested,
            gradient_scale=self.gradient_scale,
        )
        record = None
        while record is None:
            with trainable.training(self.context.run.spec.seed, self.step + 1, self.context.process_group.rank):
                try:
                    record = take()
                except GradientOverflow:
                    self.gradient_scale.shrink()
        self.step, self.validated = self.step + 1, False
        return record

    @cached_property
    def pairs_per_evaluation(self) -> int:
        """How many held-out pairs an evaluation measures; the first and the final one measure all of them."""
        options, available = self.context.run.spec.validation, len(self.context.dataset.held_out)
        if options.pairs_at_checkpoints != "auto":
            return min(available, options.pairs_at_checkpoints)
        return pairs_within_budget(
            every=self.every,
            effective_batch_size=self.hyperparameters.effective_batch_size,
            draws=options.draws,
            available=available,
        )

    def stopped_early(self) -> bool:
        patience = self.context.run.spec.validation.patience
        if patience is None or not self.validated or self.best is None:
            return False
        if not should_stop(self.context.metrics_log.rows(), patience):
            return False
        self.context.phases.report(StoppedEarly(step=self.step, best_step=self.best.step, patience=patience))
        return True

    @property
    def is_evaluation_step(self) -> bool:
        return self.step % self.every == 0 or self.step == self.hyperparameters.max_steps

    def sample_and_evaluate_if_due(self) -> None:
        """Between two steps: write samples and evaluate, where they are due."""
        evaluation_due, samples_due = self.is_evaluation_step and not self.validated, self.samples_due()
        if not evaluation_due and not samples_due:
            return
        self.line.flush(self.saved)
        if samples_due:
            self.write_samples(self.step)
        if evaluation_due:
            self.evaluate()
        if self.step < self.hyperparameters.max_steps:
            self.context.phases.enter("training")
            self.line.restart()

    def evaluate(self) -> None:
        context = self.context
        context.phases.enter("validating")
        measured = metrics(
            self.step,
            self.evaluator.measure(context.dataset.held_out[: self.pairs_per_evaluation], self.plan.memory.batch_size),
            self.base,
            self.objective,
            weights=context.dataset.held_out_weights,
            last_good_step=self.saved,
        )
        if self.best is None or measured.objective < self.best.objective:
            self.best = BestAdapter(self.step, measured.objective, context.trainable.weights())
        self.evaluator.record(measured)
        self.validated = True
        self.save()

    def samples_due(self) -> bool:
        every = self.context.run.spec.sampling.every_steps or self.every
        at_step = self.step % every == 0 or self.step == self.hyperparameters.max_steps
        return (
            self.samples is not None
            and self.context.process_group.is_main
            and self.step not in self.sampled_steps
            and at_step
        )

    def write_samples(self, step: int) -> None:
        """Without memory for them, the run goes on without this step's."""
        if self.samples is None:
            return
        phases, device = self.context.phases, self.context.device
        self.sampled_steps.add(step)
        phases.enter("sampling")
        try:
            with explain_out_of_memory(device, len(self.samples.prompts)):
                phases.report(self.samples.write(step, self.context.check, phases.progress))
                return
        except OutOfMemory:
            message = f"The device had no memory left to sample images at step {step}. Training goes on without them."
            phases.report(Warned(code="no_samples", message=message))
        free_memory(device)

    def save_due(self) -> bool:
        """Between evaluations, which write their own. Only the main process writes, by its own clock."""
        every = self.context.run.spec.checkpoints.every_seconds
        if every is None or self.is_evaluation_step or not self.context.process_group.is_main:
            return False
        return time.monotonic() - self.saved_at >= every

    def save_between_evaluations(self) -> None:
        self.line.flush(self.saved)
        self.save()
        self.line.restart(after_evaluation=False)

    def save(self) -> None:
        """Write the checkpoint of this step, if there is none yet."""
        if self.saved == self.step:
            return
        if not self.context.process_group.is_main:
            self.saved = self.step
            return
        context, folder = self.context, self.context.run.directory / "checkpoints"
        checkpoint = TrainingState(
            run=context.run.digest,
            step=self.step,
            validated=self.validated,
            adapter=context.trainable.weights(),
            optimizer=context.trainable.optimizer_state(),
            base=self.base,
            best=self.best,
            plan=self.plan,
            gradient_scale=replace(self.gradient_scale),
            metrics_log=context.metrics_log.read(),
        )
        path = write_checkpoint(folder, checkpoint)
        prune(folder, self.best.step if self.best else None)
        context.phases.report(CheckpointWritten(step=self.step, path=str(path.relative_to(context.run.directory))))
        self.saved, self.saved_at = self.step, time.monotonic()
