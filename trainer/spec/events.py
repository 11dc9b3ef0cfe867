"""The events that the trainer reports: one JSON object per line on stdout, distinguished by ``event``.

Times are seconds, memory is bytes, paths are relative to the run directory.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from trainer.spec.resolved import Resolved
from trainer.spec.strict import Strict

EXIT_DONE = 0
EXIT_INTERRUPTED = 75  # SIGTERM: a checkpoint was written, run again to go on (sysexits' EX_TEMPFAIL)
EXIT_BAD_SPEC = 64  # the run directory can never train (sysexits' EX_USAGE)


class Started(Strict):
    event: Literal["started"] = "started"
    hyperparameters: Resolved
    training_pairs: int
    validation_pairs: int
    device: str
    resumed_from_step: int


PhaseName = Literal["loading", "caching", "drawing", "validating", "training", "sampling", "exporting"]


class DataPrepared(Strict):
    """Buckets are "width x height" in pixels with their training pairs.

    ``upscaled_pairs`` have an image smaller than its bucket; ``largest_crop`` is the greatest part of an image that
    no bucket keeps.
    """

    event: Literal["data_prepared"] = "data_prepared"
    training_pairs: int
    validation_pairs: int
    drawn_images: int
    buckets: dict[str, int]
    upscaled_pairs: int
    largest_crop: float


class BetaChosen(Strict):
    """What beta "auto" became, and why."""

    event: Literal["beta_chosen"] = "beta_chosen"
    beta: float
    reason: str


class MismatchMeasured(Strict):
    """Similarity of the base's samples to the chosen images for the same prompts, 95% interval; lower is farther."""

    event: Literal["mismatch"] = "mismatch"
    similarity: float
    low: float
    high: float
    images: int
    features: str
    seconds: float


class SampleWritten(Strict):
    """``seconds`` went to sampling, not to training."""

    event: Literal["sample"] = "sample"
    step: int
    paths: tuple[str, ...]
    grid: str
    seconds: float


class MemoryPlanned(Strict):
    """How a step of ``effective_batch_size`` pairs is computed: the choices of batch_size, and of what saves memory."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    event: Literal["memory_planned"] = "memory_planned"
    effective_batch_size: int = Field(alias="step_size")
    batch_size: int
    gradient_checkpointing: bool
    streamed: bool
    measured: bool


class Phase(Strict):
    """Entering a phase; ``seconds`` is what the phase before it took."""

    event: Literal["phase"] = "phase"
    phase: PhaseName
    previous: str | None
    seconds: float


class PhaseProgress(Strict):
    """How far a phase other than training is, about once a second: images and prompts, validation batches, or
    the megabytes of a base that is downloaded."""

    event: Literal["phase_progress"] = "phase_progress"
    phase: PhaseName
    done: int
    total: int


class Progress(Strict):
    """Means over the steps since the last progress line; margin is L_l - L_w, so a growing one is good.

    Methods that train on chosen images alone have neither margin nor rejected loss.
    """

    event: Literal["progress"] = "progress"
    step: int
    max_steps: int
    loss: float
    chosen_loss: float
    rejected_loss: float | None
    margin: float | None
    grad_norm: float
    learning_rate: float
    pairs_per_second: float
    eta_seconds: float
    peak_memory_bytes: int


class TimestepBin(Strict):
    """One of the fixed draws: all pairs at one timestep."""

    timestep: float
    chosen_loss: float
    rejected_loss: float
    margin: float
    implicit_accuracy: float
    base_implicit_accuracy: float


class Metrics(Strict):
    """Held-out pairs at one checkpoint; ``base_*`` is the untrained model on the same draws.

    ``*_change`` is against the base, pair by pair; ``low`` and ``high`` are 95% bootstrap intervals over pairs.
    ``final``: the exported adapter on all held-out pairs, at the end.
    """

    event: Literal["metrics"] = "metrics"
    step: int
    objective: float
    chosen_loss: float
    rejected_loss: float
    margin: float
    implicit_accuracy: float
    implicit_accuracy_low: float
    implicit_accuracy_high: float
    base_implicit_accuracy: float
    base_chosen_loss: float
    base_rejected_loss: float
    reference_corrected_accuracy: float
    reference_corrected_accuracy_low: float
    reference_corrected_accuracy_high: float
    objective_change: float
    objective_change_low: float
    objective_change_high: float
    chosen_loss_change: float
    chosen_loss_change_low: float
    chosen_loss_change_high: float
    margin_change: float
    margin_change_low: float
    margin_change_high: float
    bins: tuple[TimestepBin, ...]
    pairs: int
    draws: int
    final: bool = False


class StoppedEarly(Strict):
    """The held-out objective did not improve for ``patience`` evaluations, the user's limit."""

    event: Literal["stopped_early"] = "stopped_early"
    step: int
    best_step: int
    patience: int


class CheckpointWritten(Strict):
    event: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str


class Warned(Strict):
    event: Literal["warning"] = "warning"
    code: str
    message: str


class Done(Strict):
    """``files`` maps names under ``output/`` to SHA-256; ``best_step`` is the checkpoint they were exported from."""

    event: Literal["done"] = "done"
    best_step: int
    files: dict[str, str]


class Sampled(Strict):
    """``files`` maps the names under ``images/``, in order, to SHA-256; ``guidance`` is what "auto" became."""

    event: Literal["drawn"] = "drawn"
    files: dict[str, str]
    width: int
    height: int
    guidance: float
    seconds: float


class Failed(Strict):
    event: Literal["failed"] = "failed"
    code: str
    message: str


Event = Annotated[
    Started
    | DataPrepared
    | MismatchMeasured
    | SampleWritten
    | BetaChosen
    | MemoryPlanned
    | Phase
    | PhaseProgress
    | Progress
    | Metrics
    | StoppedEarly
    | CheckpointWritten
    | Warned
    | Done
    | Sampled
    | Failed,
    Field(discriminator="event"),
]
_events: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str | bytes) -> Event:
    """Raises pydantic.ValidationError for a line that is no event."""
    return _events.validate_json(line)
