"""One attempt at a job: its claim and folder, what the trainer has said, and the fenced rows made of that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from store.blobs.blobs import Blobs
from store.files.files import NewFile
from store.ids import new_id
from store.job_status import RequestedAction
from store.jobs import job_leases
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.tables.base import Json
from trainer.spec.events import CheckpointWritten, Done, Event, Failed, Metrics, PhaseProgress, Progress, SampleWritten
from worker.resources import Resources
from worker.training import event_messages

log = structlog.get_logger()

RESULT_PURPOSE = "fine-tune-results"


@dataclass
class Attempt:
    """``done`` and ``failed`` are the trainer's last words; the latest metrics belong to the next checkpoint."""

    lease: JobLease
    folder: Path
    done: Done | None = None
    failed: Failed | None = None
    _metrics: Metrics | None = None
    _last_point: int = -1
    _new_events: list[NewEvent] = field(default_factory=list)
    _latest_progress: Progress | PhaseProgress | None = None
    _checkpoints: list[tuple[CheckpointWritten, Metrics | None]] = field(default_factory=list)
    _samples: list[tuple[SampleWritten, str]] = field(default_factory=list)  # with the id of the file that it becomes

    def receive(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Progress | PhaseProgress):
                self._latest_progress = event
            if not (isinstance(event, Progress) and self._repeats_point(event)):
                job_event = event_messages.to_job_event(event)
                self._new_events += [job_event] if job_event is not None else []
            if isinstance(event, Metrics):
                self._metrics = event
            elif isinstance(event, CheckpointWritten):
                self._checkpoints.append((event, self._metrics))
            elif isinstance(event, SampleWritten):
                self._samples.append((event, new_id("file")))
            elif isinstance(event, Done):
                self.done = event
            elif isinstance(event, Failed):
                self.failed = event

    def write(self, resources: Resources) -> RequestedAction | None:
        """Write what was received; returns what the user requests, if the row was read for it.

        What an unreachable database does not take stays for the next call. Also what it may have taken, when the
        answer to a commit was lost: each row has an id by now, and is written once.
        """
        requested = self._write_events(resources)
        self._new_events, self._latest_progress = [], None
        while self._checkpoints:
            self._store_checkpoint(resources, *self._checkpoints[0])
            self._checkpoints.pop(0)
        while self._samples:
            self._store_sample(resources, *self._samples[0])
            self._samples.pop(0)
        return requested

    def _write_events(self, resources: Resources) -> RequestedAction | None:
        new_events, progress = self._new_events, self._latest_progress
        if not new_events and progress is None:
            return None
        with resources.sessions.begin() as session:
            return job_leases.record(
                session,
                self.lease,
                new_events,
                progress=event_messages.progress_data(progress) if progress else None,
                eta=progress.eta_seconds if isinstance(progress, Progress) else None,
            )

    def _repeats_point(self, event: Progress) -> bool:
        """A long run's log keeps the first progress line of each of its points."""
        last, self._last_point = self._last_point, event_messages.point_of(event)
        return last == self._last_point

    def _store_checkpoint(self, resources: Resources, event: CheckpointWritten, metrics: Metrics | None) -> None:
        """Blobs first, then the fenced row, so that a visible checkpoint is whole."""
        manifest = store_checkpoint_files(resources.blobs, self.folder / event.path)
        if manifest is None:
            log.info("checkpoint.pruned_before_upload", job=self.lease.job_id, step=event.step)
            return
        measured = metrics if metrics is not None and metrics.step == event.step else None
        with resources.sessions.begin() as session:
            job_leases.add_checkpoint(
                session,
                self.lease,
                step=event.step,
                metrics=event_messages.metrics_data(measured) if measured else {"step": event.step},
                manifest=manifest,
                kept=resources.settings.checkpoints_kept,
            )

    def _store_sample(self, resources: Resources, event: SampleWritten, file_id: str) -> None:
        """The grid becomes a file that can be downloaded while the job goes on; its event names it."""
        grid = resources.blobs.put_file(self.folder / event.grid)
        name = f"samples-step-{event.step}.png"
        new = NewFile(self.lease.project_id, name, RESULT_PURPOSE, grid.bytes, grid.sha256, id=file_id)
        with resources.sessions.begin() as session:
            job_leases.add_sample(session, self.lease, new, event_messages.sample_event(event, file_id))


def store_files(blobs: Blobs, folder: Path) -> Json:
    """Every file below ``folder`` as a blob: relative name -> SHA-256 and size."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    stored = {str(path.relative_to(folder)): blobs.put_file(path) for path in paths}
    return {name: {"sha256": blob.sha256, "bytes": blob.bytes} for name, blob in stored.items()}


def store_checkpoint_files(blobs: Blobs, folder: Path) -> Json | None:
    """Like ``store_files``; None if the trainer has pruned the checkpoint, or is about to have done so.

    The checkpoint's own manifest.json names all of its other files with their SHA-256: one that is being removed
    must not be taken for a whole one.
    """
    try:
        wanted: dict[str, str] = json.loads((folder / "manifest.json").read_bytes())
        stored = store_files(blobs, folder)
    except FileNotFoundError:
        return None
    whole = all(name in stored and stored[name]["sha256"] == sha256 for name, sha256 in wanted.items())
    return stored if whole else None
