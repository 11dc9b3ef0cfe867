"""Retention of checkpoints: which of them keep their files. Their metrics stay listed. Nothing here commits."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, Double, func, select, update
from sqlalchemy.orm import Session, aliased

from store.job_status import JobStatus
from store.tables.base import Json
from store.tables.job import Checkpoint, Job

NO_FILES: Json = {}


def keep_latest_and_best(session: Session, job_id: str, kept: int) -> int:
    """Let go of the files of a running job's checkpoints but the latest ``kept``, from which it resumes, and the one
    with the lowest held-out loss. Returns of how many."""
    own = select(Checkpoint.id).where(Checkpoint.job_id == job_id, Checkpoint.manifest != NO_FILES)
    latest = own.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc()).limit(kept)
    loss = Checkpoint.metrics["valid_loss"].astext.cast(Double)
    best = own.where(loss.is_not(None)).order_by(loss, Checkpoint.step.desc()).limit(1)
    return let_go(session, Checkpoint.job_id == job_id, Checkpoint.id.not_in(latest), Checkpoint.id.not_in(best))


def drop_checkpoints(session: Session, *, days: float, failed_days: float) -> int:
    """Let go of the files of checkpoints of jobs that have ended: of all but the last ``days`` after a success, of all
    ``failed_days`` after another end.

    Returns how many. Nobody can resume from them: a job that has ended never runs again.
    """
    later = aliased(Checkpoint)
    has_later = select(later.id).where(later.job_id == Checkpoint.job_id, later.step > Checkpoint.step).exists()
    succeeded = _ended_before(days, JobStatus.SUCCEEDED)
    without_result = _ended_before(failed_days, JobStatus.FAILED, JobStatus.CANCELLED)
    return let_go(session, succeeded, has_later) + let_go(session, without_result)


def let_go(session: Session, *which: ColumnElement[bool]) -> int:
    """Of the files of these checkpoints; returns of how many that had any."""
    dropped = update(Checkpoint).where(*which, Checkpoint.manifest != NO_FILES).values(manifest=NO_FILES, bytes=0)
    ids = session.scalars(dropped.returning(Checkpoint.id).execution_options(synchronize_session=False))
    return len(ids.all())


def _ended_before(days: float, *statuses: JobStatus) -> ColumnElement[bool]:
    old = Job.finished_at < func.now() - timedelta(days=days)
    return Checkpoint.job_id.in_(select(Job.id).where(Job.status.in_(statuses), old))
