"""The order in which workers take queued jobs, and each job's queue position and expected start.

Projects take turns, as at everything that they share (store/turns.py).

Within a project: by the time of queueing, which a step of priority sets back by PRIORITY_STEP. A job can be overtaken
only by jobs that come within a bounded time after it, so none waits for ever, whatever comes later.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, text
from sqlalchemy.orm import Session, aliased

from store import turns
from store.job_status import JobStatus
from store.tables.job import Job
from store.tables.project import Project
from store.turns import JOBS, Turns

PRIORITY_STEP = timedelta(hours=6)
TYPICAL_JOBS = 50  # succeeded jobs, the latest, that say how long one takes


@dataclass(frozen=True)
class QueuePosition:
    """``position`` counts from 1; ``expected_start`` is None while there is nothing to estimate it from."""

    position: int
    expected_start: datetime | None


def rank(job: type[Job]) -> ColumnElement[Any]:
    """A job's time of queueing, moved by its priority: the earliest of a project is taken first."""
    key: ColumnElement[Any] = job.queued_at - job.priority * PRIORITY_STEP
    return key


TURNS = Turns(JOBS, Project.served_at, "running_jobs", rank(Job))


def all_positions(connection: Connection) -> dict[str, QueuePosition]:
    """The queue positions of all queued jobs, by id."""
    ids = [job_id for job_id, _ in connection.execute(_in_order().order_by("position"))]
    starts = _first_starts(connection, len(ids)) if ids else []
    return {job_id: QueuePosition(at, starts[at - 1] if starts else None) for at, job_id in enumerate(ids, 1)}


def positions(session: Session, job_ids: Collection[str]) -> dict[str, QueuePosition]:
    """The queue positions of those of ``job_ids`` that are queued now; jobs that end, arrive or pause change them."""
    if not job_ids:
        return {}
    ordered = _in_order().subquery()
    query = select(ordered.c.id, ordered.c.position).where(ordered.c.id.in_(job_ids)).order_by(ordered.c.position)
    found = [(job_id, position) for job_id, position in session.execute(query)]
    starts = _first_starts(session, found[-1][1]) if found else []
    return {job_id: QueuePosition(at, starts[at - 1] if starts else None) for job_id, at in found}


def _in_order() -> Select[Any]:
    """All queued jobs with their positions: the n-th of a project comes when it has n - 1 more running than now. Of
    projects that are even then, one that has not been served meanwhile comes before those that have."""
    job, running = aliased(Job), turns.running_by_project(JOBS)
    nth = func.row_number().over(partition_by=job.project_id, order_by=(rank(job), job.id))
    now = func.coalesce(running.c.rows, 0)
    queued = (
        select(job.id, now.label("now"), (now + nth).label("then"), Project.served_at, Project.id.label("project_id"))
        .join(Project, Project.id == job.project_id)
        .outerjoin(running, running.c.project_id == job.project_id)
        .where(job.status == JobStatus.QUEUED)
        .subquery()
    )
    order = (queued.c.then, queued.c.now.desc(), queued.c.served_at.nulls_first(), queued.c.project_id)
    return select(queued.c.id, func.row_number().over(order_by=order).label("position"))


def _first_starts(session: Session | Connection, count: int) -> list[datetime]:
    """When the first ``count`` jobs of the queue may start; empty if there is nothing to estimate from.

    Each worker that runs a job takes the next one at its end, and each takes as long as the latest ones did.
    """
    typical = _typical(session)
    now = session.scalars(select(func.clock_timestamp())).one()
    ends = list(session.scalars(select(Job.estimated_finish).where(Job.status == JobStatus.RUNNING)))
    if not ends or typical is None:
        return []
    return expected_starts([max(end, now) if end is not None else now + typical for end in ends], typical, count)


def expected_starts(ends: Sequence[datetime], duration: timedelta, count: int) -> list[datetime]:
    """``ends``: when each worker is free, in any order."""
    free = list(ends)
    heapq.heapify(free)
    found = []
    for _ in range(count):
        found.append(free[0])
        heapq.heapreplace(free, free[0] + duration)
    return found


def _typical(session: Session | Connection) -> timedelta | None:
    """The median time on a worker of the latest jobs that succeeded; those of before this was noted do not count."""
    latest = (
        select((Job.finished_at - Job.claimed_at).label("took"))
        .where(text("status = 'succeeded'"))  # as in the partial index
        .order_by(Job.id.desc())
        .limit(TYPICAL_JOBS)
        .subquery()
    )
    return session.scalar(select(func.percentile_cont(0.5).within_group(latest.c.took)))
