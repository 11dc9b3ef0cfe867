"""What must hold of jobs whatever happened to the machines: read from rows and the event log, after the fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.job_status import TERMINAL, JobStatus, may_become
from store.tables.job import Checkpoint, Job, JobEvent


def violations(session: Session, *, all_ended: bool, of: Collection[str] | None = None) -> list[str]:
    """One sentence for everything that may never be, of these jobs or of all.

    ``all_ended``: nothing is under way any more.
    """
    found = []
    query = select(Job) if of is None else select(Job).where(Job.id.in_(of))
    for job in session.scalars(query.order_by(Job.id)):
        log = list(session.scalars(select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.sequence)))
        steps = list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id)))
        found += [f"{job.id}: {fault}" for fault in _of_one(job, log, steps, all_ended=all_ended)]
    return found


def statuses(log: list[JobEvent]) -> list[JobStatus]:
    """The states that the log tells, in order."""
    reported = [(event.data or {}).get("status") for event in log]
    return [JobStatus(status) for status in reported if status is not None]


def _of_one(job: Job, log: list[JobEvent], checkpoints: list[Checkpoint], *, all_ended: bool) -> Iterator[str]:
    path = statuses(log)
    for before, after in pairwise(path):
        if not may_become(before, after):
            yield f"went from {before} to {after}"
    if path and path[-1] != job.status:
        yield f"is {job.status}, but its log ends with {path[-1]}"
    ends = [status for status in path if status in TERMINAL]
    if len(ends) > 1:
        yield f"ended {len(ends)} times: {ends}"
    if all_ended and job.status not in TERMINAL:
        yield f"was accepted and is still {job.status}"
    yield from _fencing(job, log, checkpoints)
    yield from _reported_twice(log)
    if (job.status == JobStatus.SUCCEEDED) != (job.fine_tuned_model is not None):
        yield f"is {job.status} with model {job.fine_tuned_model}"
    if (job.status == JobStatus.FAILED) != (job.error is not None):
        yield f"is {job.status} with error {job.error}"


def _fencing(job: Job, log: list[JobEvent], checkpoints: list[Checkpoint]) -> Iterator[str]:
    """No write of a lower attempt after a higher claim; attempts are claimed one by one."""
    highest = 0
    for event in log:
        if event.attempt == 0:
            continue  # the service's own
        if event.attempt < highest:
            yield f"attempt {event.attempt} wrote {event.message!r} after attempt {highest} had claimed"
        if (event.data or {}).get("status") == JobStatus.RUNNING:
            if event.attempt != highest + 1:
                yield f"attempt {event.attempt} was claimed after {highest}"
        elif event.attempt > highest:
            yield f"attempt {event.attempt} wrote {event.message!r} before it had claimed"
        highest = max(highest, event.attempt)
    if highest != job.attempt:
        yield f"is at attempt {job.attempt}, but its log at {highest}"
    if any(checkpoint.attempt > job.attempt for checkpoint in checkpoints):
        yield "has a checkpoint of an attempt that never was"


def _reported_twice(log: list[JobEvent]) -> Iterator[str]:
    """What a trainer says holds times and rates, so the same from one attempt is one saying, written twice."""
    said = [event for event in log if event.type == "metrics" or "event" in (event.data or {})]
    reported = Counter(f"attempt {event.attempt}: {event.message!r} {event.data}" for event in said)
    yield from (f"reported {count} times by {what}" for what, count in reported.items() if count > 1)
