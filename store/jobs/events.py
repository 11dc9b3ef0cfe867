"""A job's event log: every transition writes here, and so does a worker that owns the job. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from sqlalchemy import BigInteger, Text, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from store import pagination
from store.ids import new_id
from store.tables.base import Json
from store.tables.job import JobEvent

Level = Literal["info", "warn", "error"]
EventKind = Literal["message", "metrics"]  # the two types that OpenAI's clients know


@dataclass(frozen=True)
class NewEvent:
    """``id`` is chosen once, so that a writer who cannot know whether its commit arrived may write it again."""

    message: str
    level: Level = "info"
    type: EventKind = "message"
    data: Json | None = None
    id: str = field(default_factory=partial(new_id, "ftevent"), compare=False)


def append(session: Session, job_id: str, events: Sequence[NewEvent], *, attempt: int = 0) -> None:
    """The caller holds the job's row (it has just updated it), so events of one job never interleave.

    What stands in the log already is not written again.
    """
    if not events:
        return
    rows = [
        {
            "id": event.id,
            "job_id": job_id,
            "attempt": attempt,
            "level": event.level,
            "type": event.type,
            "message": event.message,
            "data": event.data,
        }
        for event in events
    ]
    session.execute(insert(JobEvent).on_conflict_do_nothing(index_elements=["id"]), rows)


def sample_files(session: Session, job_id: str) -> list[str]:
    """The ids of the files of samples that the job's events name."""
    named = JobEvent.data["file_id"].astext
    return list(session.scalars(select(named).where(JobEvent.job_id == job_id, named.is_not(None))))


def after_each(session: Session, seen: Mapping[str, int], *, limit: int) -> list[JobEvent]:
    """Of several jobs at once the events after the sequence that each was read up to, oldest first."""
    if not seen:
        return []
    ids, sequences = zip(*seen.items(), strict=True)
    read_up_to = select(
        func.unnest(literal(list(ids), ARRAY(Text))).label("job_id"),
        func.unnest(literal(list(sequences), ARRAY(BigInteger))).label("sequence"),
    ).subquery()
    query = select(JobEvent).join(
        read_up_to, (JobEvent.job_id == read_up_to.c.job_id) & (JobEvent.sequence > read_up_to.c.sequence)
    )
    return list(session.scalars(query.order_by(JobEvent.sequence).limit(limit)))


def sequence_of(session: Session, job_id: str, event_id: str) -> int | None:
    """Where in its job's log the event stands; None if it is none of this job's."""
    return session.scalar(select(JobEvent.sequence).where(JobEvent.id == event_id, JobEvent.job_id == job_id))


def metrics(session: Session, job_id: str) -> list[JobEvent]:
    """The events of type metrics, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == "metrics").order_by(JobEvent.sequence)
    return list(session.scalars(query))


def newest_first(session: Session, job_id: str, *, after: str | None, limit: int) -> list[JobEvent]:
    """Up to ``limit`` events older than the event ``after``; the newest ones without it. Raises CursorUnknown."""
    query = select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence.desc()).limit(limit)
    if after is not None:
        of_this = (JobEvent.id == after, JobEvent.job_id == job_id)
        sequence = pagination.position(session, select(JobEvent.sequence).where(*of_this), after)
        query = query.where(JobEvent.sequence < sequence)
    return list(session.scalars(query))
