"""Set up a training run: check it, encode its data, attach the adapter, and restore the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch

from trainer.cache.cache import Cache
from trainer.data.encoding import CachingEncoder, new_encoder
from trainer.data.pairs import (
    DataRequirements,
    DatasetFiles,
    EncodedDataset,
    all_prompts,
    dataset_files_of,
    dataset_report,
    encode_dataset,
)
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.measure_mismatch import DEFAULT_SAMPLES, features_of, measure_mismatch
from trainer.families import open_family
from trainer.families.family import Family
from trainer.families.precision import compute_field_errors, dtype_of
from trainer.families.text import token_field_errors
from trainer.run_directory.metrics_log import MetricsLog
from trainer.run_directory.output import METRICS
from trainer.run_directory.run import Run
from trainer.runtime.device import choose_device, free_memory
from trainer.runtime.distributed import ProcessGroup
from trainer.runtime.errors import BadRun
from trainer.runtime.event_stream import PhaseReporter, Report, download_progress, heartbeat_check
from trainer.runtime.signals import StopRequest
from trainer.sampling.missing_images import find_missing_images, with_sampled_images
from trainer.sampling.sampler import Sampler
from trainer.spec.events import MismatchMeasured, Started, Warned
from trainer.spec.strict import Auto
from trainer.training.checkpoint import TrainingState, newest_checkpoint
from trainer.training.trainable import Trainable, new_trainable

MANY_MISSING = 500  # images to sample: half an hour or so for SDXL on a fast GPU
HELD_OUT_WARNINGS = {
    "images shared": "All pairs are connected by images that they share: validation pairs share some with training.",
    "pair": "All pairs have the same prompt: validation pairs share it with training.",
    "nothing": "There is one pair only: it is trained on and validated on.",
}


@dataclass(frozen=True)
class TrainingContext:
    """What a run trains, on what data, where, and through whom it reports."""

    run: Run
    device: torch.device
    encoder: CachingEncoder
    trainable: Trainable
    dataset: EncodedDataset
    metrics_log: MetricsLog
    phases: PhaseReporter
    stop: StopRequest
    process_group: ProcessGroup

    @property
    def family(self) -> Family:
        return self.encoder.family

    @cached_property
    def check(self) -> Callable[[], None]:
        return heartbeat_check(self.phases, self.stop)

    @cached_property
    def sampler(self) -> Sampler:
        return new_sampler(self.run, self.encoder, self.trainable, self.device)


class Setup(NamedTuple):
    """``resumed`` is the checkpoint to go on from; ``mismatch`` is None where it was not measured."""

    context: TrainingContext
    evaluator: Evaluator
    resumed: TrainingState | None
    mismatch: MismatchMeasured | None


def prepare(
    run: Run,
    cache: Cache,
    requirements: DataRequirements,
    phases: PhaseReporter,
    stop: StopRequest,
    process_group: ProcessGroup,
) -> Setup:
    """Raises BadRun for data or a base that cannot be used, Interrupted once a stop is requested."""
    spec, report, device = run.spec, phases.report, choose_device()
    files = dataset_files_of(run)
    resumed = process_group.main_first(lambda: last_checkpoint(run, report))
    require_trainable(run, all_prompts(files, run, requirements), device)
    family = open_family(spec.base, spec.adapter, spec.compute, download_progress(phases, stop))
    report_start(run, files, device, resumed, report)
    stop.check()
    phases.enter("caching")
    encoder = new_encoder(family, cache, spec.data.resolution, dtype_of(spec.compute, device))
    encode = partial(
        encode_dataset,
        encoder,
        run=run,
        requirements=requirements,
        device=device,
        stop=stop,
        progress=phases.progress,
        process_group=process_group,
    )
    dataset = encode(files)
    free_memory(device)
    stop.check()
    phases.enter("loading")
    rates = run.hyperparameters
    trainable = new_trainable(family, spec, device, learning_rate=rates.learning_rate, weight_decay=rates.weight_decay)
    missing = find_missing_images(files, run, requirements, encoder, {pair.id for pair in dataset.visited})
    if missing:
        report_many_missing(len(missing), report)
        phases.enter("drawing")
        with trainable.denoiser.without_adapter():
            files = with_sampled_images(
                files,
                missing,
                run,
                new_sampler(run, encoder, trainable, device),
                check=heartbeat_check(phases, stop),
                progress=phases.progress,
                process_group=process_group,
            )
        phases.enter("caching")
        dataset = encode(files)
        free_memory(device)
    cache.enforce_bound()
    report(dataset_report(dataset, sampled_images=len(missing)))
    metrics_log = MetricsLog(
        run.directory / (METRICS if process_group.is_main else f".{METRICS}.process-{process_group.rank}")
    )
    context = TrainingContext(run, device, encoder, trainable, dataset, metrics_log, phases, stop, process_group)
    mismatch = None
    if resumed is None and (count := mismatch_samples(spec.mismatch.samples, requirements)):
        mismatch = mismatch_of(context, count)
    if resumed:
        trainable.load_weights(resumed.adapter)
        trainable.load_optimizer_state(resumed.optimizer)
    metrics_log.restore(resumed.metrics_log if resumed else b"")
    return Setup(context, new_evaluator(context), resumed, mismatch)


def last_checkpoint(run: Run, report: Report) -> TrainingState | None:
    return newest_checkpoint(
        run.directory / "checkpoints", run.digest, lambda code, text: report(Warned(code=code, message=text))
    )


def require_trainable(run: Run, prompts: list[str], device: torch.device) -> None:
    """Raises BadRun for options that this machine or these prompts do not allow."""
    field_errors = [*compute_field_errors(run.spec.compute, device), *token_field_errors(run.spec.adapter, prompts)]
    if field_errors:
        raise BadRun(field_errors)


def report_start(
    run: Run, files: DatasetFiles, device: torch.device, resumed: TrainingState | None, report: Report
) -> None:
    report(
        Started(
            hyperparameters=run.hyperparameters,
            training_pairs=len(files.training),
            validation_pairs=len(files.held_out),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            resumed_from_step=resumed.step if resumed else 0,
        )
    )
    if run.held_out_by in HELD_OUT_WARNINGS:
        report(Warned(code="weak_validation", message=HELD_OUT_WARNINGS[run.held_out_by]))


def report_many_missing(count: int, report: Report) -> None:
    if count >= MANY_MISSING:
        message = f"{count} images are missing and are sampled from the base before training, which takes long."
        report(Warned(code="many_missing_images", message=message))


def mismatch_samples(requested: int | Auto, requirements: DataRequirements) -> int:
    """How many images the reference mismatch is measured on."""
    if requested == "auto":
        return DEFAULT_SAMPLES if requirements.mismatch else 0
    return requested


def mismatch_of(context: TrainingContext, count: int) -> MismatchMeasured:
    """Sample ``count`` images from the base, and measure how far they are from the chosen images."""
    spec, phases = context.run.spec, context.phases
    phases.enter("drawing")
    with context.trainable.denoiser.without_adapter():
        sampler = new_sampler(context.run, context.encoder, context.trainable, context.device)
        features = features_of(spec.dinov2, context.device)
        (mismatch, *_) = context.process_group.all_gather(
            measure_mismatch(
                context.dataset.visited,
                sampler,
                features,
                count,
                seed=spec.seed,
                check=context.check,
                progress=phases.progress,
            )
        )
    phases.report(mismatch)
    return mismatch


def new_sampler(run: Run, encoder: CachingEncoder, trainable: Trainable, device: torch.device) -> Sampler:
    options, family = run.spec.sampling, encoder.family
    return Sampler(
        denoiser=trainable.denoiser,
        decoder=family.load_decoder(device),
        cache=encoder.cache,
        empty_prompt_key=encoder.prompt_key(""),
        steps=options.steps,
        guidance=family.guidance if options.guidance == "auto" else options.guidance,
        device=device,
    )


def new_evaluator(context: TrainingContext) -> Evaluator:
    return Evaluator(
        context.trainable.denoiser,
        context.encoder.cache,
        draws=context.run.spec.validation.draws,
        timestep_at=context.family.timestep_at,
        max_steps=context.run.hyperparameters.max_steps,
        metrics_log=context.metrics_log,
        device=context.device,
        phases=context.phases,
        stop=context.stop,
        process_group=context.process_group,
    )
