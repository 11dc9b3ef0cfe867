"""The trainer's events in the words of the job's event log."""

from __future__ import annotations

from typing import assert_never

from store.events import NewEvent
from store.models import Json
from trainer.spec.events import (
    CheckpointWritten,
    Done,
    Event,
    Failed,
    Metrics,
    Phase,
    PhaseProgress,
    Progress,
    Started,
    Warned,
)

POINTS = 200  # progress events kept of a whole run; the job's row always has the latest


def to_job_event(event: Event) -> NewEvent | None:
    """None for what the supervisor itself turns into rows or states."""
    match event:
        case Started():
            return NewEvent(_started(event), data=event.model_dump(mode="json"))
        case Phase():
            return NewEvent(f"{event.phase.capitalize()}.", data=event.model_dump(mode="json"))
        case Progress():
            return NewEvent(_progress(event), type="metrics", data=progress_data(event))
        case Metrics():
            return NewEvent(_metrics(event), type="metrics", data=metrics_data(event))
        case Warned():
            return NewEvent(event.message, level="warn", data={"code": event.code})
        case PhaseProgress() | CheckpointWritten() | Done() | Failed():
            return None
        case _:
            assert_never(event)


def point_of(progress: Progress) -> int:
    """The point of a run's POINTS that this step falls on: of several lines on one point, the first is kept."""
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


def _started(event: Started) -> str:
    resumed = f", going on from step {event.resumed_from_step}" if event.resumed_from_step else ""
    return (
        f"Training on {event.training_pairs} pairs ({event.validation_pairs} held out) on {event.device}{resumed}: "
        f"{event.hyperparameters.max_steps} steps of {event.hyperparameters.batch_size} pairs."
    )


def _progress(event: Progress) -> str:
    return (
        f"Step {event.step}/{event.max_steps}: loss {event.loss:.4f}, margin {event.margin:+.4f}, "
        f"{event.pairs_per_second:.1f} pairs/s, {event.eta_seconds:.0f} s left."
    )


def _metrics(event: Metrics) -> str:
    return (
        f"Held-out pairs at step {event.step}: implicit accuracy {event.implicit_accuracy:.2f} "
        f"(base {event.base_implicit_accuracy:.2f}), margin {event.margin:+.4f}, objective {event.objective:.4f}."
    )
