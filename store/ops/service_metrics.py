"""Service metrics that PostgreSQL knows: a few indexed queries, with the same result in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, select, text
from sqlalchemy.orm import Session

from store.job_status import TERMINAL, JobStatus
from store.ops.counters import Queue
from store.tables.counter import Counter, Heartbeat
from store.tables.file import File
from store.tables.generation import Generation, GenerationStatus
from store.tables.job import Job
from store.tables.upload import Upload
from store.tables.webhook import WebhookDelivery

# Written as in the partial indexes, so that the planner sees that those hold every selected row.
LIVE = text(f"status NOT IN ({', '.join(repr(str(status)) for status in sorted(TERMINAL))})")
QUEUED = text("status = 'queued'")
LIVE_IMAGES = text("status IN ('queued', 'running')")
WAITING = text("status = 'uploaded' AND deleted_at IS NULL")


@dataclass(frozen=True)
class RunningJob:
    """The latest progress of a worker's job; None where its trainer has reported nothing yet."""

    worker: str
    pairs_per_second: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True)
class FileBeingRead:
    """A file that an intake worker reads; ``peak_memory_bytes`` is that of its process since it was started."""

    worker: str
    peak_memory_bytes: float


@dataclass(frozen=True)
class Signals:
    """Ages in seconds. A queue that is empty has age 0; a loop that was never round is not in ``lags``."""

    jobs: Mapping[str, int]
    queue_age: Mapping[Queue, float]
    waiting_files: int
    counters: Mapping[tuple[str, str], int]
    running: list[RunningJob]
    reading: list[FileBeingRead]
    lags: Mapping[str, float]
    pending_uploads: int
    due_deliveries: int
    oldest_due_delivery: float


def read(session: Session) -> Signals:
    waiting_files, file_age = _waiting_files(session)
    due, overdue = _deliveries(session)
    return Signals(
        jobs=_jobs(session),
        queue_age={"train": _train_age(session), "intake": file_age, "draw": _draw_age(session)},
        waiting_files=waiting_files,
        counters=_counters(session),
        running=_running(session),
        reading=_reading(session),
        lags=_lags(session),
        pending_uploads=_pending_uploads(session),
        due_deliveries=due,
        oldest_due_delivery=overdue,
    )


def _jobs(session: Session) -> dict[str, int]:
    """Every state that is not an end, with 0 where there is none."""
    found = session.execute(select(Job.status, func.count()).where(LIVE).group_by(Job.status))
    counts = {status: count for status, count in found}  # noqa: C416 - a row is no pair to dict's types
    return {str(status): counts.get(status, 0) for status in JobStatus if status not in TERMINAL}


def _train_age(session: Session) -> float:
    return float(session.scalars(select(_age(func.min(Job.queued_at))).where(QUEUED)).one())


def _draw_age(session: Session) -> float:
    since = select(_age(func.min(Generation.created_at)))
    return float(session.scalars(since.where(LIVE_IMAGES, Generation.status == GenerationStatus.QUEUED)).one())


def _waiting_files(session: Session) -> tuple[int, float]:
    """Uploads that nobody reads. Their number, and the age of the oldest."""
    unread = File.lease_expires_at.is_(None) | (File.lease_expires_at < func.clock_timestamp())
    row = session.execute(select(func.count(), _age(func.min(File.created_at))).where(WAITING, unread)).one()
    return row[0], float(row[1])


def _counters(session: Session) -> dict[tuple[str, str], int]:
    total = select(Counter.name, Counter.queue, func.sum(Counter.value)).group_by(Counter.name, Counter.queue)
    return {(name, queue): int(value) for name, queue, value in session.execute(total)}


def _running(session: Session) -> list[RunningJob]:
    query = select(Job.worker, Job.progress).where(LIVE, Job.status == JobStatus.RUNNING).order_by(Job.worker)
    return [_running_job(worker or "", progress or {}) for worker, progress in session.execute(query)]


def _reading(session: Session) -> list[FileBeingRead]:
    """Those that have reported something."""
    query = select(File.progress).where(WAITING, File.progress.is_not(None)).order_by(File.id)
    reported = [progress or {} for progress in session.scalars(query)]
    return [FileBeingRead(one["worker"], one["peak_memory_bytes"]) for one in reported if "peak_memory_bytes" in one]


def _running_job(worker: str, progress: Mapping[str, Any]) -> RunningJob:
    """Progress of an earlier phase, or of another version, lacks either figure."""
    return RunningJob(worker, progress.get("pairs_per_second"), progress.get("peak_memory_bytes"))


def _lags(session: Session) -> dict[str, float]:
    query = select(cast(Heartbeat.name, Text), _age(Heartbeat.at))
    return {name: float(age) for name, age in session.execute(query)}


def _pending_uploads(session: Session) -> int:
    pending = select(func.count()).select_from(Upload).where(text("status = 'pending'"))
    return session.scalars(pending.where(Upload.expires_at > func.clock_timestamp())).one()


def _deliveries(session: Session) -> tuple[int, float]:
    """What should have been sent by now; one that is being sent is due again when its sender is taken for dead."""
    since = WebhookDelivery.next_attempt_at
    row = session.execute(select(func.count(), _age(func.min(since))).where(since <= func.clock_timestamp())).one()
    return row[0], float(row[1])


def _age(since: ColumnElement[Any] | Any) -> ColumnElement[Any]:
    return func.greatest(0, func.coalesce(func.extract("epoch", func.clock_timestamp() - since), 0))
