"""What a run needs before its training loop: encoded data, the adapter on its base, where an earlier call stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from trainer.cache.cache import Cache
from trainer.data.encoding import EncodedPair, Encoder, new_encoder
from trainer.data.pairs import (
    DataRequirements,
    DatasetFiles,
    EncodedDataset,
    all_prompts,
    dataset_files_of,
    encode_pairs,
    prepared,
)
from trainer.evaluation.diagnostics import warnings
from trainer.evaluation.held_out import HeldOutLosses, held_out_losses
from trainer.evaluation.measure_mismatch import DEFAULT_SAMPLES, features_of, measure_mismatch
from trainer.families import open_family
from trainer.families.family import Family
from trainer.families.precision import compute_field_errors
from trainer.families.text import token_field_errors
from trainer.run_directory.metrics_log import MetricsLog
from trainer.run_directory.output import METRICS
from trainer.run_directory.run import Run
from trainer.runtime.device import choose_device, free_memory
from trainer.runtime.distributed import ProcessGroup
from trainer.runtime.errors import BadRun
from trainer.runtime.event_stream import PhaseReporter, heartbeat_check
from trainer.runtime.signals import StopRequest
from trainer.sampling.missing_images import find_missing_images, with_sampled_images
from trainer.sampling.sampler import Sampler
from trainer.spec.events import Metrics, MismatchMeasured, Started, Warned
from trainer.spec.strict import Auto
from trainer.training.checkpoint import Checkpoint, newest_checkpoint
from trainer.training.trainable import Learner, new_learner

HELD_OUT_WARNINGS = {
    "pair": "All pairs have the same prompt: validation pairs share it with training.",
    "nothing": "There is one pair only: it is trained on and validated on.",
}
HELD_OUT_BATCH = 4  # pairs in a forward pass without gradient, which fits wherever a step does


@dataclass(frozen=True)
class TrainingContext:
    """``pairs`` are the files that ``data`` was encoded from, drawn ones too; ``mismatch`` only where it was wanted."""

    run: Run
    requirements: DataRequirements
    device: torch.device
    family: Family
    encoder: Encoder
    learner: Learner
    pairs: DatasetFiles
    data: EncodedDataset
    mismatch: MismatchMeasured | None
    resumed: Checkpoint | None
    metrics_log: MetricsLog
    phases: PhaseReporter
    stop: StopRequest
    process_group: ProcessGroup

    @property
    def cache(self) -> Cache:
        return self.encoder.cache

    @cached_property
    def check(self) -> Callable[[], None]:
        return heartbeat_check(self.phases, self.stop)

    @cached_property
    def sampler(self) -> Sampler:
        return new_sampler(self.run, self.family, self.encoder, self.learner, self.device)

    def measure(self, pairs: Sequence[EncodedPair], batch_size: int) -> HeldOutLosses:
        """The network as it is now, on the fixed draws of these pairs."""
        return held_out_losses(
            self.learner.denoiser,
            pairs,
            self.cache,
            draws=self.run.spec.validation.draws,
            timestep_at=self.family.timestep_at,
            batch_size=batch_size,
            device=self.device,
            stop=self.stop,
            progress=self.phases.progress,
            process_group=self.process_group,
        )

    def note(self, measured: Metrics) -> None:
        """Tell and write down what was measured, and what that warns of."""
        self.phases.report(measured)
        self.metrics_log.append([{"kind": "validation", **measured.model_dump(exclude={"event"})}])
        if measured.final:
            return
        for warned in warnings(self.metrics_log.rows(), self.run.hyperparameters.max_steps):
            self.phases.report(warned)
            self.metrics_log.append(
                [{"kind": "warning", "step": measured.step, **warned.model_dump(exclude={"event"})}]
            )


def prepare(
    run: Run,
    cache: Cache,
    requirements: DataRequirements,
    phases: PhaseReporter,
    stop: StopRequest,
    process_group: ProcessGroup,
) -> TrainingContext:
    """Raises BadRun for data or a base that cannot be used, Interrupted where a stop was asked for."""
    spec, report = run.spec, phases.report
    device, check = choose_device(), heartbeat_check(phases, stop)
    pairs = dataset_files_of(run)
    resumed = process_group.main_first(
        lambda: newest_checkpoint(
            run.directory / "checkpoints", run.digest, lambda code, text: report(Warned(code=code, message=text))
        )
    )
    field_errors = [
        *compute_field_errors(spec.compute, device),
        *token_field_errors(spec.adapter, all_prompts(pairs, run, requirements)),
    ]
    if field_errors:
        raise BadRun(field_errors)
    family = open_family(spec.base, spec.adapter, spec.compute)
    report(
        Started(
            hyperparameters=run.hyperparameters,
            training_pairs=len(pairs.training),
            validation_pairs=len(pairs.held_out),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            resumed_from_step=resumed.step if resumed else 0,
        )
    )
    if run.held_out_by in HELD_OUT_WARNINGS:
        report(Warned(code="weak_validation", message=HELD_OUT_WARNINGS[run.held_out_by]))
    stop.check()

    phases.enter("caching")
    encoder = new_encoder(family, cache, spec.data.resolution)
    data = encode_pairs(
        encoder,
        pairs,
        run,
        requirements,
        device=device,
        stop=stop,
        progress=phases.progress,
        process_group=process_group,
    )
    free_memory(device)
    stop.check()

    phases.enter("loading")
    asked = run.hyperparameters
    learner = new_learner(family, spec, device, learning_rate=asked.learning_rate, weight_decay=asked.weight_decay)
    commissions = find_missing_images(pairs, run, requirements, encoder)
    if commissions:
        phases.enter("drawing")
        with learner.denoiser.without_adapter():
            pairs = with_sampled_images(
                pairs,
                commissions,
                run,
                new_sampler(run, family, encoder, learner, device),
                check=check,
                progress=phases.progress,
                process_group=process_group,
            )
        phases.enter("caching")
        data = encode_pairs(
            encoder,
            pairs,
            run,
            requirements,
            device=device,
            stop=stop,
            progress=phases.progress,
            process_group=process_group,
        )
        free_memory(device)
    if (too_small := cache.enforce_bound()) is not None:
        report(too_small)
    report(prepared(data, drawn=len(commissions)))
    samples = wanted_samples(spec.mismatch.samples, requirements) if resumed is None else 0
    mismatch = None
    if samples:
        phases.enter("drawing")
        with learner.denoiser.without_adapter():
            sampler = new_sampler(run, family, encoder, learner, device)
            features = features_of(spec.dinov2, device)
            (mismatch, *_) = process_group.all_gather(
                measure_mismatch(
                    data.training,
                    sampler,
                    features,
                    samples,
                    seed=spec.seed,
                    check=check,
                    progress=phases.progress,
                )
            )
        report(mismatch)
    if resumed:
        learner.load_weights(resumed.adapter)
        learner.load_optimizer_state(resumed.optimizer)
    metrics_log = MetricsLog(
        run.directory / (METRICS if process_group.is_main else f".{METRICS}.process-{process_group.rank}")
    )
    metrics_log.restore(resumed.metrics_log if resumed else b"")
    return TrainingContext(
        run,
        requirements,
        device,
        family,
        encoder,
        learner,
        pairs,
        data,
        mismatch,
        resumed,
        metrics_log,
        phases,
        stop,
        process_group,
    )


def wanted_samples(asked: int | Auto, requirements: DataRequirements) -> int:
    """How many images the reference mismatch is measured on; a resumed run has used it already."""
    if asked == "auto":
        return DEFAULT_SAMPLES if requirements.mismatch else 0
    return asked


def new_sampler(run: Run, family: Family, encoder: Encoder, learner: Learner, device: torch.device) -> Sampler:
    asked = run.spec.sampling
    return Sampler(
        denoiser=learner.denoiser,
        decoder=family.load_decoder(device),
        cache=encoder.cache,
        empty_prompt_key=encoder.prompt_key(""),
        steps=asked.steps,
        guidance=family.guidance if asked.guidance == "auto" else asked.guidance,
        device=device,
    )


def measure_base(context: TrainingContext) -> HeldOutLosses:
    """The held-out pairs before training; the best adapter is measured on the same draws at the end."""
    if context.resumed:
        return context.resumed.base
    context.phases.enter("validating")
    with context.learner.denoiser.without_adapter():
        return context.measure(context.data.held_out, HELD_OUT_BATCH)
