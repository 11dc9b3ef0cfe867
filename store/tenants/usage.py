"""What a project uses. Nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from store.job_status import JobStatus
from store.leases import Leases
from store.tables.dataset import Dataset, DatasetPair
from store.tables.file import File
from store.tables.generation import Generation
from store.tables.job import Checkpoint, Job
from store.tables.upload import Upload
from store.turns import FILES, GENERATIONS

WAITING = (JobStatus.VALIDATING_FILES, JobStatus.QUEUED, JobStatus.PAUSED)


@dataclass(frozen=True)
class FileUsage:
    count: int
    bytes: int


@dataclass(frozen=True)
class UploadUsage:
    """Pending ones; ``bytes`` are those that were declared, of which a part may have arrived."""

    count: int
    bytes: int


@dataclass(frozen=True)
class Turnout:
    """Rows that wait for a worker, and that have one."""

    queued: int
    running: int


@dataclass(frozen=True)
class TrainingUsage:
    """``seconds`` with a worker, of all jobs and their attempts, those that run now included."""

    jobs: dict[JobStatus, int]
    seconds: float


def files(session: Session, project_id: str) -> FileUsage:
    """Uploaded and produced ones, without those that were deleted; with the images of uploads as they are stored."""
    query = select(func.count(), func.coalesce(func.sum(File.bytes + func.coalesce(File.images_bytes, 0)), 0))
    count, size = session.execute(query.where(File.project_id == project_id, File.deleted_at.is_(None))).one()
    return FileUsage(count, int(size))


def datasets_bytes(session: Session, project_id: str) -> int:
    """Of images that were sent with single pairs; those of files count with their files."""
    query = select(func.coalesce(func.sum(Dataset.bytes), 0))
    return int(session.scalars(query.where(Dataset.project_id == project_id, Dataset.deleted_at.is_(None))).one())


def uploads(session: Session, project_id: str) -> UploadUsage:
    """One whose time is over counts no more, whether or not its row says so yet."""
    query = select(func.count(), func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.project_id == project_id, Upload.status == "pending", Upload.expires_at > func.clock_timestamp()
    )
    count, size = session.execute(query).one()
    return UploadUsage(count, int(size))


def stored_bytes(session: Session, project_id: str) -> int:
    """An upload counts with its declared bytes from its beginning, so that completing it never exceeds the quota.

    What the service makes of uploads counts too: their images as they are stored, checkpoints, generated images.
    """
    of_files, in_flight = files(session, project_id), uploads(session, project_id)
    return of_files.bytes + in_flight.bytes + datasets_bytes(session, project_id) + made_bytes(session, project_id)


def made_bytes(session: Session, project_id: str) -> int:
    """Of checkpoints and of generated images."""
    checkpoints = select(func.sum(Checkpoint.bytes)).join(Job, Job.id == Checkpoint.job_id)
    images = select(func.sum(Generation.bytes)).where(Generation.deleted_at.is_(None))
    of_checkpoints = session.scalar(checkpoints.where(Job.project_id == project_id, Checkpoint.bytes > 0))
    return int((of_checkpoints or 0) + (session.scalar(images.where(Generation.project_id == project_id)) or 0))


def unread_files(session: Session, project_id: str) -> Turnout:
    """Of uploads that intake has not read to the end."""
    return _turnout(session, FILES, File.project_id == project_id)


def generations(session: Session, project_id: str) -> Turnout:
    """Of requests for images that have not ended."""
    return _turnout(session, GENERATIONS, Generation.project_id == project_id)


def pairs(session: Session, project_id: str) -> int:
    """Rows of the project's datasets: those of pairs that were removed and of deleted datasets too, until they go.

    A dataset numbers its pairs without a gap, so that its highest number says how many rows it has.
    """
    highest = select(func.max(DatasetPair.number)).where(DatasetPair.dataset_id == Dataset.id).scalar_subquery()
    query = select(func.coalesce(func.sum(highest), 0)).where(Dataset.project_id == project_id)
    return int(session.scalars(query).one())


def _turnout(session: Session, leases: Leases[Any], own: ColumnElement[bool]) -> Turnout:
    of = leases.table
    queued, running = (func.count(of.id).filter(state) for state in (leases.waiting, leases.live))
    row = session.execute(select(queued, running).where(own, leases.waiting | leases.live)).one()
    return Turnout(*row)


def jobs_in(session: Session, project_id: str, *statuses: JobStatus) -> int:
    query = select(func.count()).select_from(Job).where(Job.project_id == project_id, Job.status.in_(statuses))
    return session.scalars(query).one()


def training(session: Session, project_id: str) -> TrainingUsage:
    query = select(Job.status, func.count(), func.sum(Job.training_seconds + attempt_seconds()))
    rows = session.execute(query.where(Job.project_id == project_id).group_by(Job.status)).all()
    counts = dict.fromkeys(JobStatus, 0) | {JobStatus(status): count for status, count, _ in rows}
    return TrainingUsage(counts, float(sum(seconds for _, _, seconds in rows)))


def attempt_seconds() -> ColumnElement[float]:
    """Since a job that runs was claimed, and 0 for others; a worker that is gone trained no longer than its lease."""
    until = func.least(func.clock_timestamp(), Job.lease_expires_at)
    since_claim = func.coalesce(func.extract("epoch", until - Job.claimed_at), 0.0)
    return case((Job.status == JobStatus.RUNNING, since_claim), else_=0.0)
