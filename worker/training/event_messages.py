"""The messages and data of a job's event log, made from the trainer's events."""

from __future__ import annotations

from typing import assert_never

from store.jobs.events import NewEvent
from store.tables.base import Json
from trainer.spec.events import (
    BetaChosen,
    CheckpointWritten,
    DataPrepared,
    Done,
    Event,
    Failed,
    MemoryPlanned,
    Metrics,
    MismatchMeasured,
    Phase,
    PhaseName,
    PhaseProgress,
    Progress,
    Sampled,
    SampleWritten,
    Started,
    StoppedEarly,
    Warned,
)

POINTS = 200  # progress events stored of a whole run; the job's row always has the latest
SIZES = 6  # of a dataset that a message lists
PHASES: dict[PhaseName, str] = {
    "loading": "Loading the base model.",
    "caching": "Encoding images and prompts.",
    "drawing": "Sampling images with the base model.",
    "validating": "Measuring the held-out pairs.",
    "training": "Training.",
    "sampling": "Sampling from the adapter.",
    "exporting": "Exporting the adapter.",
}


def to_job_event(event: Event) -> NewEvent | None:
    """None for what the supervisor itself turns into rows or states."""
    match event:
        case Started():
            return NewEvent(_started(event), data=event.model_dump(mode="json"))
        case DataPrepared():
            return NewEvent(_data_prepared(event), data=event.model_dump(mode="json"))
        case MismatchMeasured():
            return NewEvent(_mismatch(event), data=event.model_dump(mode="json"))
        case BetaChosen():
            return NewEvent(f"beta is {event.beta:g}: {event.reason}.", data=event.model_dump(mode="json"))
        case MemoryPlanned():
            return NewEvent(_memory_planned(event), data=event.model_dump(mode="json"))
        case StoppedEarly():
            return NewEvent(_stopped_early(event), data=event.model_dump(mode="json"))
        case Phase():
            return NewEvent(PHASES[event.phase], data=event.model_dump(mode="json"))
        case Progress():
            return NewEvent(_progress(event), type="metrics", data=progress_data(event))
        case Metrics():
            return NewEvent(_metrics(event), type="metrics", data=metrics_data(event))
        case Warned():
            return NewEvent(event.message, level="warn", data={"code": event.code})
        case PhaseProgress() | SampleWritten() | CheckpointWritten() | Done() | Sampled() | Failed():
            return None
        case _:
            assert_never(event)


def point_of(progress: Progress) -> int:
    """The point of a run's POINTS that this step falls on: of several lines on one point, the first counts."""
    if progress.step >= progress.max_steps:
        return POINTS + 1
    return progress.step * POINTS // progress.max_steps if progress.max_steps > POINTS else progress.step


def progress_data(event: Progress | PhaseProgress) -> Json:
    """Ours, with OpenAI's names for what it also has."""
    if isinstance(event, PhaseProgress):
        return event.model_dump(mode="json")
    return {**event.model_dump(mode="json"), "train_loss": event.loss, "total_steps": event.max_steps}


def metrics_data(event: Metrics) -> Json:
    return {**event.model_dump(mode="json"), "valid_loss": event.objective, "full_valid_loss": event.objective}


def sample_event(event: SampleWritten, file_id: str) -> NewEvent:
    """``file_id`` is the grid of all samples so far, which is more use to a client than paths on a worker."""
    whose = f"Samples at step {event.step}" if event.step else "Samples of the base"
    message = f"{whose}: {_counted(len(event.paths), 'image')} in {event.seconds:.1f} s."
    data = {"event": event.event, "step": event.step, "seconds": event.seconds, "file_id": file_id}
    return NewEvent(message, data=data)


def _started(event: Started) -> str:
    requested, held_out = event.hyperparameters, event.validation_pairs
    resumed = f", going on from step {event.resumed_from_step}" if event.resumed_from_step else ""
    steps = f"{_counted(requested.max_steps, 'step')} of {_counted(requested.effective_batch_size, 'pair')}"
    return (
        f"Training by {requested.method} on {_counted(event.training_pairs, 'pair')} ({held_out} held out) on "
        f"{event.device}{resumed}: {steps}."
    )


def _data_prepared(event: DataPrepared) -> str:
    largest = sorted(event.buckets.items(), key=lambda bucket: -bucket[1])
    sizes = ", ".join(f"{count} at {size}" for size, count in largest[:SIZES])
    others = f" and {_counted(len(largest) - SIZES, 'other size')}" if len(largest) > SIZES else ""
    sampled = f" The base sampled {_counted(event.drawn_images, 'image')}." if event.drawn_images else ""
    small = f" {_counted(event.upscaled_pairs, 'pair')} had to be enlarged." if event.upscaled_pairs else ""
    cut = f" At most {event.largest_crop:.0%} of an image is cut off." if event.largest_crop else ""
    return f"Training pairs by size: {sizes}{others}.{sampled}{small}{cut}"


def _mismatch(event: MismatchMeasured) -> str:
    return (
        f"The base's own images resemble the chosen ones by {event.similarity:.2f} (95% interval {event.low:.2f} to "
        f"{event.high:.2f}; {_counted(event.images, 'image')}, {event.features})."
    )


def _memory_planned(event: MemoryPlanned) -> str:
    saving = [
        words
        for used, words in (
            (event.gradient_checkpointing, "gradient checkpointing"),
            (event.streamed, "streamed pairs"),
        )
        if used
    ]
    how = f" with {' and '.join(saving)}" if saving else ""
    return f"Steps of {_counted(event.effective_batch_size, 'pair')}, {event.batch_size} in a forward pass{how}."


def _stopped_early(event: StoppedEarly) -> str:
    return (
        f"Stopped at step {event.step}: the held-out objective has not been lower than at step {event.best_step} for "
        f"{_counted(event.patience, 'checkpoint')}."
    )


def _progress(event: Progress) -> str:
    margin = f", margin {event.margin:+.4f}" if event.margin is not None else ""
    return (
        f"Step {event.step}/{event.max_steps}: loss {event.loss:.4f}{margin}, "
        f"{event.pairs_per_second:.1f} pairs/s, {event.eta_seconds:.0f} s left."
    )


def _metrics(event: Metrics) -> str:
    where = f"Held-out pairs at step {event.step}"
    if event.final:
        where = f"Result, from step {event.step}, on {_counted(event.pairs, 'held-out pair')}"
    return (
        f"{where}: implicit accuracy {event.implicit_accuracy:.2f} "
        f"(base {event.base_implicit_accuracy:.2f}), margin {event.margin:+.4f}, objective {event.objective:.4f}."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
