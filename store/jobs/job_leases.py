"""What a worker may do to the job that it leases (store/leases.py): claim, renew, write, end. Nothing here commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, func, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store import leases, turns
from store.files import files
from store.ids import new_id
from store.job_status import JobStatus, RequestedAction
from store.jobs import events, queue, retention
from store.jobs.events import NewEvent
from store.ops.counters import count
from store.tables.base import Json
from store.tables.file import File
from store.tables.job import Checkpoint, Job
from store.tenants import usage
from store.tenants.limits import UNLIMITED, ProjectLimits
from store.turns import JOBS
from store.webhooks import outbox


@dataclass(frozen=True)
class JobLease:
    """The right to write to one job, until the lease expires."""

    job_id: str
    project_id: str
    attempt: int


def claim(
    session: Session, job_id: str, *, worker: str, lease_seconds: float, limits: ProjectLimits = UNLIMITED
) -> JobLease | None:
    """Claim this job; None if it is not queued, or if its project runs as many jobs as it may.

    A repeated call does nothing. ``limits`` are the deployment's.
    """
    if not turns.may_run(session, queue.TURNS, job_id, limits.running_jobs):
        return None
    return _claim(session, job_id, worker, lease_seconds)


def claim_next(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    limits: ProjectLimits = UNLIMITED,
    memory_gib: int | None = None,
    readable: Callable[[str, Json], bool] | None = None,
) -> JobLease | None:
    """Claim the next job of the queue (store/jobs/queue.py); None if there is none for this worker.

    Passed over are jobs that another worker is claiming, that do not fit into ``memory_gib``, and whose spec is not
    ``readable`` to this worker.
    """
    fits = true() if memory_gib is None else func.coalesce(Job.memory_gib, 0) <= memory_gib

    def suits(job_id: str) -> bool:
        return readable is None or readable(job_id, session.scalars(select(Job.spec).where(Job.id == job_id)).one())

    turn = turns.next_id(session, queue.TURNS, limits.running_jobs, fits, suits=suits)
    if turn is None:
        return None
    return claim(session, turn, worker=worker, lease_seconds=lease_seconds, limits=limits)


def _claim(session: Session, job_id: str, worker: str, lease_seconds: float) -> JobLease | None:
    row = leases.claim(
        session,
        JOBS,
        job_id,
        Job.project_id,
        Job.attempt,
        lease_seconds=lease_seconds,
        status=JobStatus.RUNNING,
        worker=worker,
        requested=None,
        claimed_at=func.clock_timestamp(),
    )
    if row is None:
        return None
    lease = JobLease(job_id, row.project_id, row.attempt)
    turns.mark_served(session, queue.TURNS, lease.project_id)
    started = NewEvent("Started.", data={"status": JobStatus.RUNNING, "worker": worker})
    events.append(session, lease.job_id, [started], attempt=lease.attempt)
    return lease


def renew(session: Session, lease: JobLease, *, lease_seconds: float) -> RequestedAction | None:
    """Extend the lease; returns what the user has requested meanwhile."""
    row = leases.renew(session, JOBS, lease.job_id, lease.attempt, Job.requested, lease_seconds=lease_seconds)
    return _request(row)


def record(
    session: Session,
    lease: JobLease,
    new_events: Sequence[NewEvent],
    *,
    progress: Json | None = None,
    eta: float | None = None,
) -> RequestedAction | None:
    """Append events and keep the latest progress; ``eta`` is seconds from now."""
    changes: dict[str, Any] = {}
    if progress is not None:
        changes["progress"] = progress
    if eta is not None:
        changes["estimated_finish"] = func.clock_timestamp() + timedelta(seconds=eta)
    row = _write(session, lease, **(changes or {"worker": Job.worker}))
    events.append(session, lease.job_id, new_events, attempt=lease.attempt)
    return _request(row)


def add_checkpoint(
    session: Session, lease: JobLease, *, step: int, metrics: Json, manifest: Mapping[str, Any], kept: int = 5
) -> None:
    """Make a checkpoint visible, once all of its blobs are stored.

    A checkpoint without a measurement only serves to resume from, so the next checkpoint replaces it. Of the others
    the files of the latest ``kept`` and of the best stay.
    """
    _write(session, lease, worker=Job.worker)
    added = session.scalar(
        insert(Checkpoint)
        .values(
            id=new_id("ftckpt"),
            job_id=lease.job_id,
            attempt=lease.attempt,
            step=step,
            metrics=metrics,
            manifest=dict(manifest),
            bytes=sum(file["bytes"] for file in manifest.values()),
        )
        # A worker repeats the write when it could not learn whether the commit arrived.
        .on_conflict_do_nothing(index_elements=["job_id", "step", "attempt"])
        .returning(Checkpoint.id)
    )
    if added is not None:
        unmeasured = ~Checkpoint.metrics.has_key("valid_loss")
        session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.step < step, unmeasured))
        retention.keep_latest_and_best(session, lease.job_id, kept)
        events.append(session, lease.job_id, [NewEvent(f"Checkpoint at step {step}.")], attempt=lease.attempt)


def add_sample(session: Session, lease: JobLease, grid: files.NewFile, event: NewEvent) -> None:
    """The file and the event that names it; a repeated write of the same file changes nothing."""
    _write(session, lease, worker=Job.worker)
    if session.get(File, grid.id) is None:
        files.create(session, grid, status="processed")
        events.append(session, lease.job_id, [event], attempt=lease.attempt)


def latest_checkpoint(session: Session, job_id: str) -> Checkpoint | None:
    return session.scalar(
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id)
        .order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())
        .limit(1)
    )


def succeed(session: Session, lease: JobLease, *, results: Sequence[files.NewFile]) -> list[str]:
    """The one fenced commit that makes a job's artifacts visible; returns their file ids."""
    _release(session, lease, JobStatus.SUCCEEDED, finished_at=func.clock_timestamp())
    job = session.scalars(select(Job).where(Job.id == lease.job_id)).one()
    result_ids = [files.create(session, result, status="processed").id for result in results]
    job.result_files = result_ids
    job.fine_tuned_model = fine_tuned_model_name(job)
    session.flush()
    done = NewEvent("Succeeded.", data={"status": JobStatus.SUCCEEDED, "result_files": result_ids})
    events.append(session, lease.job_id, [done], attempt=lease.attempt)
    outbox.job_ended(session, lease.job_id)
    return result_ids


def fine_tuned_model_name(job: Job) -> str:
    """In OpenAI's form: ``ft:<base>:<suffix>:<job>``."""
    return f"ft:{job.spec['base']['name']}:{job.suffix or ''}:{job.id.removeprefix('ftjob-')}"


def fail(session: Session, lease: JobLease, *, code: str, message: str) -> None:
    """End the job for a reason that another attempt would meet again."""
    error = {"code": code, "message": message, "param": None}
    _release(session, lease, JobStatus.FAILED, error=error, finished_at=func.clock_timestamp())
    failed = NewEvent(message, level="error", data={"status": JobStatus.FAILED, "error": error})
    events.append(session, lease.job_id, [failed], attempt=lease.attempt)
    outbox.job_ended(session, lease.job_id)


def give_back(session: Session, lease: JobLease, message: str) -> JobStatus:
    """End the attempt in good order: queue the job again, unless the user has requested a pause or a cancel."""
    return _give_back(session, lease, _lock(session, lease).requested, NewEvent(message))


def crash(session: Session, lease: JobLease, *, code: str, message: str, crash_cap: int) -> JobStatus:
    """The trainer or its worker died: queue the job again, or fail it when that happened ``crash_cap`` times.

    A cancel or a pause that the user requested comes before both.
    """
    held = _lock(session, lease)
    count(session, "crashes", "train")
    if held.requested is None and held.crashes + 1 >= crash_cap:
        fail(session, lease, code=code, message=f"Gave up after {held.crashes + 1} crashes. {message}")
        return JobStatus.FAILED
    event = NewEvent(f"Crashed. {message}", level="warn", data={"code": code})
    return _give_back(session, lease, held.requested, event, crashes=Job.crashes + 1)


def expire(session: Session, *, crash_cap: int) -> list[str]:
    """Take back jobs whose lease expired; returns the ids of those queued again."""
    queued = []
    for job in leases.expired(session, JOBS, Job.id, Job.project_id, Job.attempt, Job.worker):
        message = f"Worker {job.worker} stopped renewing its lease on attempt {job.attempt}. {leases.LOST}"
        lease = JobLease(job.id, job.project_id, job.attempt)
        if crash(session, lease, code="worker_lost", message=message, crash_cap=crash_cap) is JobStatus.QUEUED:
            queued.append(job.id)
    return queued


# ---------------------------------------------------------------------------------------------------------- fencing


def _write(session: Session, lease: JobLease, **changes: Any) -> Row[Any]:
    """Returns the user's pending request."""
    return leases.write(session, JOBS, lease.job_id, lease.attempt, Job.requested, **changes)


def _request(row: Row[Any]) -> RequestedAction | None:
    return RequestedAction(row.requested) if row.requested is not None else None


def _release(session: Session, lease: JobLease, to: JobStatus, **changes: Any) -> None:
    changes["training_seconds"] = Job.training_seconds + usage.attempt_seconds()
    _write(session, lease, status=to, lease_expires_at=None, requested=None, published_at=None, **changes)


_GIVEN_BACK_TO = {
    None: (JobStatus.QUEUED, "Queued again."),
    RequestedAction.PAUSE: (JobStatus.PAUSED, "Paused."),
    RequestedAction.CANCEL: (JobStatus.CANCELLED, "Cancelled."),
}


def _give_back(session: Session, lease: JobLease, requested: str | None, event: NewEvent, **changes: Any) -> JobStatus:
    """``event`` gets the outcome added; the row's lock is held, so the request cannot change any more."""
    to, outcome = _GIVEN_BACK_TO[RequestedAction(requested) if requested else None]
    if to is JobStatus.CANCELLED:
        changes["finished_at"] = func.clock_timestamp()
    elif to is JobStatus.QUEUED:
        changes["queued_at"] = func.clock_timestamp()
    _release(session, lease, to, **changes)
    event = replace(event, message=f"{event.message} {outcome}".strip(), data={**(event.data or {}), "status": to})
    events.append(session, lease.job_id, [event], attempt=lease.attempt)
    if to is JobStatus.CANCELLED:
        outbox.job_ended(session, lease.job_id)
    elif to is JobStatus.QUEUED:
        count(session, "requeues", "train")
    return to


def _lock(session: Session, lease: JobLease) -> Row[Any]:
    """``requested`` and ``crashes``, which cannot change any more."""
    return leases.lock(session, JOBS, lease.job_id, lease.attempt, Job.requested, Job.crashes)
