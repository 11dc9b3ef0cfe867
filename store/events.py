"""A job's event log: every transition writes here, and so does a worker that owns the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store.ids import new_id
from store.models import JobEvent, Json

Level = Literal["info", "warn", "error"]
Kind = Literal["message", "metrics"]  # the two types that OpenAI's clients know


@dataclass(frozen=True)
class NewEvent:
    message: str
    level: Level = "info"
    type: Kind = "message"
    data: Json | None = None


def append(session: Session, job_id: str, events: Sequence[NewEvent], *, attempt: int = 0) -> None:
    """The caller holds the job's row (it has just updated it), so events of one job never interleave."""
    if not events:
        return
    rows = [
        {
            "id": new_id("ftevent"),
            "job_id": job_id,
            "attempt": attempt,
            "level": event.level,
            "type": event.type,
            "message": event.message,
            "data": event.data,
        }
        for event in events
    ]
    session.execute(insert(JobEvent), rows)


def newest_first(session: Session, job_id: str, *, after: str | None, limit: int) -> list[JobEvent]:
    """Up to ``limit`` events older than the event ``after``; the newest ones without it."""
    query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence.desc()).limit(limit)
    if after is not None:
        cursor = select(JobEvent.sequence).where(JobEvent.id == after, JobEvent.job_id == job_id)
        query = query.where(JobEvent.sequence < cursor.scalar_subquery())
    return list(session.scalars(query))
