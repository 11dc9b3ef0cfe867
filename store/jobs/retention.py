"""Retention of checkpoints: their files go some days after their job's end. Nothing here commits."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from store.job_status import TERMINAL
from store.tables.base import Json
from store.tables.job import Checkpoint, Job

ENDED = [str(status) for status in TERMINAL]
NO_FILES: Json = {}


def drop_checkpoints(session: Session, *, days: float) -> int:
    """Let go of the files of all checkpoints but the last of jobs that ended longer ago; their metrics stay listed.

    Returns how many. Nobody can download or resume from them: a job that has ended never runs again.
    """
    later = aliased(Checkpoint)
    is_last = ~select(later.id).where(later.job_id == Checkpoint.job_id, later.step > Checkpoint.step).exists()
    old = select(Job.id).where(Job.status.in_(ENDED), Job.finished_at < func.now() - timedelta(days=days))
    dropped = session.scalars(
        update(Checkpoint)
        .where(Checkpoint.job_id.in_(old), ~is_last, Checkpoint.manifest != NO_FILES)
        .values(manifest=NO_FILES)
        .returning(Checkpoint.id)
    )
    return len(dropped.all())
