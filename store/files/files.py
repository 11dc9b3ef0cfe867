"""Files: what users upload and what jobs produce. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from store import pagination
from store.errors import FileInUse, FileNotFound
from store.ids import new_id
from store.job_status import TERMINAL
from store.tables.base import Json
from store.tables.file import File
from store.tables.job import Job


@dataclass(frozen=True)
class NewFile:
    project_id: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    policy: Json | None = None
    id: str = field(default_factory=partial(new_id, "file"))


def create(session: Session, new: NewFile, *, status: str) -> File:
    """``status``: uploaded for an archive that intake has to read, processed for a file that is ready as it is."""
    file = File(
        id=new.id,
        project_id=new.project_id,
        filename=new.filename,
        purpose=new.purpose,
        bytes=new.bytes,
        sha256=new.sha256,
        policy=new.policy,
        status=status,
    )
    session.add(file)
    session.flush()
    session.refresh(file)
    return file


def get(session: Session, project_id: str, file_id: str) -> File:
    file = session.scalar(_one(project_id, file_id))
    if file is None:
        raise FileNotFound(file_id)
    return file


def get_for_job(session: Session, project_id: str, file_id: str) -> File:
    """Like ``get``, and until this transaction ends the file is neither deleted nor marked as read: otherwise a job
    that is created while intake finishes would wait for an event that it has missed."""
    file = session.scalar(_one(project_id, file_id).with_for_update(read=True))
    if file is None:
        raise FileNotFound(file_id)
    return file


def by_ids(session: Session, file_ids: Sequence[str | None]) -> list[File]:
    wanted = [file_id for file_id in file_ids if file_id is not None]
    return list(session.scalars(select(File).where(File.id.in_(wanted))))


def newest_first(
    session: Session, project_id: str, *, after: str | None, limit: int, purpose: str | None, oldest_first: bool = False
) -> list[File]:
    """Up to ``limit`` files beyond the file ``after`` in the chosen order. Raises CursorUnknown."""
    query = select(File).where(File.project_id == project_id, File.deleted_at.is_(None)).limit(limit)
    query = query.order_by(File.id.asc() if oldest_first else File.id.desc())
    if after is not None:
        pagination.position(session, select(File.id).where(File.id == after, File.project_id == project_id), after)
        query = query.where(File.id > after if oldest_first else File.id < after)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return list(session.scalars(query))


def delete(session: Session, project_id: str, file_id: str) -> File:
    """Hide a file from its owner. Jobs that have ended keep what they were made of; a live job refuses."""
    file = session.scalar(_one(project_id, file_id).with_for_update())
    if file is None:
        raise FileNotFound(file_id)
    user = session.scalar(
        select(Job.id).where(
            (Job.training_file_id == file_id) | (Job.validation_file_id == file_id),
            Job.status.not_in([str(status) for status in TERMINAL]),
        )
    )
    if user is not None:
        raise FileInUse(file_id, user)
    file.deleted_at = session.scalar(select(func.now()))
    return file


def _one(project_id: str, file_id: str) -> Select[File]:
    return select(File).where(File.id == file_id, File.project_id == project_id, File.deleted_at.is_(None))
