"""The jobs of a project in pages, and the models that they made."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from store import pagination
from store.job_status import JobStatus
from store.tables.base import Json
from store.tables.job import Job

SCANNED_JOBS = 10_000  # jobs, in which PostgreSQL finds a page in some ten milliseconds


def newest_first(
    session: Session, project_id: str, *, after: str | None, limit: int, metadata: Json | None
) -> list[Job]:
    """Up to ``limit`` jobs older than the job ``after`` whose metadata holds all of ``metadata``; None matches
    jobs that were given none. Raises CursorUnknown."""
    query = select(Job).where(Job.project_id == project_id, Job.deleted_at.is_(None))
    if after is not None:
        pagination.position(session, select(Job.id).where(Job.id == after, Job.project_id == project_id), after)
        query = query.where(Job.id < after)
    newest = query.order_by(Job.id.desc())
    if metadata is None:
        return list(session.scalars(newest.where(Job.job_metadata.is_(None)).limit(limit)))
    if not metadata:
        return list(session.scalars(newest.limit(limit)))
    # What many jobs hold is found among the newest at once, what few hold only by the index of metadata. PostgreSQL
    # keeps no statistics of a document's keys, and would read every job of the project where it guesses wrong.
    holds = Job.job_metadata.contains(metadata)
    scanned = aliased(Job, newest.limit(SCANNED_JOBS).subquery())
    among = select(scanned).where(scanned.job_metadata.contains(metadata)).order_by(scanned.id.desc())
    found = list(session.scalars(among.limit(limit)))
    if len(found) < limit:
        indexed = select(Job.id).where(Job.project_id == project_id, Job.deleted_at.is_(None), holds)
        ids = (indexed if after is None else indexed.where(Job.id < after)).cte("holding").prefix_with("MATERIALIZED")
        found = list(session.scalars(select(Job).join(ids, ids.c.id == Job.id).order_by(Job.id.desc()).limit(limit)))
    return found


def fine_tuned(session: Session, project_id: str, *, after: str | None, limit: int) -> list[Job]:
    """Up to ``limit`` succeeded jobs with a model, newest first, older than that of the model ``after``, which may have
    been deleted since. Raises CursorUnknown."""
    query = select(Job).where(Job.project_id == project_id, Job.fine_tuned_model.is_not(None))
    if after is not None:
        kind, _, of_job = after.rpartition(":")  # ft:<base>:<suffix>, and the job's id without its prefix
        job_id = f"ftjob-{of_job}" if kind.startswith("ft:") else ""
        succeeded = Job.status == JobStatus.SUCCEEDED
        pagination.position(
            session, select(Job.id).where(Job.id == job_id, Job.project_id == project_id, succeeded), after
        )
        query = query.where(Job.id < job_id)
    return list(session.scalars(query.order_by(Job.id.desc()).limit(limit)))
