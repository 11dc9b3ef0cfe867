"""Erasing rows: of what was deleted some days ago and nothing needs, and of a whole project. Nothing here commits.

Until a deleted row is erased, requests that read it before can end, and an operator can take a mistake back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Delete, Table, delete, exists, false, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.job_status import TERMINAL
from store.tables import base
from store.tables.dataset import Dataset, DatasetPair, DatasetRevision
from store.tables.file import File
from store.tables.generation import Generation, GenerationStatus
from store.tables.job import Checkpoint, Job, JobEvent
from store.tables.project import Project
from store.tables.upload import Upload, UploadPart
from store.tables.webhook import WebhookDelivery

AT_ONCE = 5000  # rows in one transaction

Step = Callable[[Session, float], int]


def _generations(session: Session, days: float) -> int:
    live = Generation.status.in_([GenerationStatus.QUEUED, GenerationStatus.RUNNING])
    return _deleted(session, Generation.id, _long_ago(Generation.deleted_at, days), ~live)


def _events(session: Session, days: float) -> int:
    return _deleted(session, JobEvent.sequence, JobEvent.job_id.in_(_jobs_to_erase(days)))


def _checkpoints(session: Session, days: float) -> int:
    return _deleted(session, Checkpoint.id, Checkpoint.job_id.in_(_jobs_to_erase(days)))


def _deliveries(session: Session, days: float) -> int:
    return _deleted(session, WebhookDelivery.id, WebhookDelivery.job_id.in_(_jobs_to_erase(days)))


def _jobs(session: Session, days: float) -> int:
    return _deleted(session, Job.id, Job.id.in_(_jobs_to_erase(days)))


def _jobs_to_erase(days: float) -> Any:
    return select(Job.id).where(_long_ago(Job.deleted_at, days), Job.status.in_([str(status) for status in TERMINAL]))


def _pairs(session: Session, days: float) -> int:
    """Those that no job will read, whatever jobs there were."""
    old = select(Dataset.id).where(_long_ago(Dataset.deleted_at, days), ~_pinned(Dataset.id, live=True))
    return _deleted(session, DatasetPair.id, DatasetPair.dataset_id.in_(old))


def _revisions(session: Session, days: float) -> int:
    """Jobs that are shown name theirs."""
    old = select(Dataset.id).where(_long_ago(Dataset.deleted_at, days), ~_pinned(Dataset.id, live=False))
    return _deleted(session, DatasetRevision.dataset_id, DatasetRevision.dataset_id.in_(old))


def _datasets(session: Session, days: float) -> int:
    rows = exists().where(DatasetRevision.dataset_id == Dataset.id) | exists().where(
        DatasetPair.dataset_id == Dataset.id
    )
    return _deleted(session, Dataset.id, _long_ago(Dataset.deleted_at, days), ~rows)


def _pinned(dataset_id: InstrumentedAttribute[str], *, live: bool) -> ColumnElement[bool]:
    by = (Job.training_dataset_id == dataset_id) | (Job.validation_dataset_id == dataset_id)
    return exists().where(by, Job.status.not_in([str(status) for status in TERMINAL]) if live else Job.id.is_not(None))


def _parts(session: Session, days: float) -> int:
    return _deleted(session, UploadPart.id, UploadPart.upload_id.in_(_uploads_to_erase(days)))


def _uploads(session: Session, days: float) -> int:
    return _deleted(session, Upload.id, Upload.id.in_(_uploads_to_erase(days)))


def _uploads_to_erase(days: float) -> Any:
    """Those that made no file, and those whose file was deleted."""
    deleted = select(File.id).where(_long_ago(File.deleted_at, days))
    vain = Upload.status.in_(["cancelled", "expired"]) & _long_ago(Upload.swept_at, days)
    return select(Upload.id).where(vain | Upload.file_id.in_(deleted))


def _files(session: Session, days: float) -> int:
    return _deleted(session, File.id, _long_ago(File.deleted_at, days), ~_file_named())


def _file_contents(session: Session, days: float) -> int:
    """Of those that a job or a dataset still names: their reports quote prompts, and their names may say something."""
    live = exists().where(
        (Job.training_file_id == File.id) | (Job.validation_file_id == File.id),
        Job.status.not_in([str(status) for status in TERMINAL]),
    )
    blank = {"report": None, "status_details": None, "policy": None, "progress": None, "filename": ""}
    old = select(File.id).where(_long_ago(File.deleted_at, days), File.filename != "", ~live).limit(AT_ONCE)
    return _count(session, update(File).where(File.id.in_(old)).values(blank))


def _file_named() -> ColumnElement[bool]:
    return (
        exists().where((Job.training_file_id == File.id) | (Job.validation_file_id == File.id))
        | exists().where(DatasetPair.file_id == File.id)
        | exists().where(Upload.file_id == File.id)
    )


# Each until it erases nothing more; a row goes after those that name it.
STEPS: tuple[Step, ...] = (
    *(_generations, _events, _checkpoints, _deliveries, _jobs),
    *(_pairs, _revisions, _datasets, _parts, _uploads, _files, _file_contents),
)


def erase_project(session: Session, project_id: str) -> dict[str, int]:
    """Every row that belongs to the project, and the project; returns how many of which table.

    A worker that has one of its rows finds its lease lost, and stops. The blobs go with the next sweep.
    """
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update())
    erased: dict[str, int] = {}
    for table in reversed(base.Table.metadata.sorted_tables):
        own = _of_project(table, project_id)
        if own is not None:
            erased[table.name] = _count(session, delete(table).where(own))
    return {name: count for name, count in erased.items() if count}


def _of_project(table: Table, project_id: str) -> ColumnElement[bool] | None:
    """That a row belongs to the project, by its own columns or by the rows that it names; None of a shared table."""
    if table.name == Project.__tablename__:
        return table.c.id == project_id
    if "project_id" in table.c:
        return table.c.project_id == project_id
    found = []
    for key in (key for key in table.foreign_keys if len(key.constraint.elements) == 1):  # type: ignore[union-attr]
        parent = _of_project(key.column.table, project_id)
        if parent is not None:
            found.append(key.parent.in_(select(key.column).where(parent)))
    return or_(false(), *found) if found else None


def _long_ago(deleted_at: InstrumentedAttribute[Any], days: float) -> ColumnElement[bool]:
    return deleted_at < func.now() - timedelta(days=days)


def _deleted(session: Session, key: InstrumentedAttribute[Any], *which: ColumnElement[bool]) -> int:
    """Delete up to AT_ONCE rows of the table of ``key``; returns how many."""
    some = select(key).where(*which).limit(AT_ONCE)
    return _count(session, delete(key.class_).where(key.in_(some)))


def _count(session: Session, change: Delete | Any) -> int:
    result: CursorResult[Any] = session.execute(change.execution_options(synchronize_session=False))  # type: ignore[assignment]
    return result.rowcount
