"""Jobs as their owner sees them: create, read, and ask for a cancel, a pause, a resume. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, inspect, select
from sqlalchemy.orm import Session

from store import pagination
from store.errors import IllegalTransition, JobNotFound, ModelNotFound
from store.files import files
from store.ids import new_id
from store.job_status import TERMINAL, JobStatus, RequestedAction, may_become
from store.jobs import events, retention
from store.jobs.events import NewEvent
from store.tables.base import Json
from store.tables.dataset import DatasetRevision
from store.tables.file import File
from store.tables.job import Checkpoint, Job
from store.webhooks import outbox

# Where pairs come from.
PairSource = File | DatasetRevision
_READ = select(*(getattr(Job, column.key).label(column.key) for column in inspect(Job).column_attrs)).where(
    Job.id == bindparam("job_id"), Job.project_id == bindparam("project_id"), Job.deleted_at.is_(None)
)


@dataclass(frozen=True)
class NewJob:
    """``spec`` is a RunSpec as JSON; ``attributes`` are columns of Job that the client chose, by their names."""

    project_id: str
    spec: Json
    training_file: PairSource
    validation_file: PairSource | None
    attributes: Json = field(default_factory=dict)
    key_id: str | None = None
    request_sha256: str | None = None
    id: str = field(default_factory=partial(new_id, "ftjob"))


def create(session: Session, new: NewJob) -> Job:
    """A job whose files are still being read waits for them; the intake worker moves it on."""
    sources = (new.training_file, new.validation_file)
    ready = all(source.status == "processed" for source in sources if isinstance(source, File))
    job = Job(
        id=new.id,
        project_id=new.project_id,
        status=JobStatus.QUEUED if ready else JobStatus.VALIDATING_FILES,
        queued_at=func.clock_timestamp() if ready else None,
        spec=new.spec,
        **_columns("training", new.training_file),
        **_columns("validation", new.validation_file),
        **new.attributes,
        key_id=new.key_id,
        request_sha256=new.request_sha256,
    )
    session.add(job)
    session.flush()
    session.refresh(job)
    first = "Created; waiting for a worker." if ready else "Created; the files are being read."
    events.append(session, job.id, [NewEvent(first, data={"status": job.status})])
    return job


def pairs_documents(session: Session, job: Job) -> tuple[str | None, str | None]:
    """The digests of the lists of pairs to train on and to validate with; None where there is none."""
    of_files = {
        file.id: file.pairs_sha256 for file in files.by_ids(session, [job.training_file_id, job.validation_file_id])
    }

    def of(file_id: str | None, dataset_id: str | None, number: int | None) -> str | None:
        if dataset_id is not None:
            return session.get_one(DatasetRevision, (dataset_id, number)).pairs_sha256
        return of_files[file_id] if file_id is not None else None

    return (
        of(job.training_file_id, job.training_dataset_id, job.training_revision),
        of(job.validation_file_id, job.validation_dataset_id, job.validation_revision),
    )


def serialize_request(session: Session, key_id: str, request_sha256: str) -> None:
    """Until this transaction ends, a create with the same key and body waits here."""
    lock = func.pg_advisory_xact_lock(func.hashtextextended(f"{key_id} {request_sha256}", 0))
    session.execute(select(lock))


def by_request(session: Session, key_id: str, request_sha256: str, *, within: timedelta) -> Job | None:
    """The newest job that this key created with this body, no longer ago than ``within``."""
    query = select(Job).where(
        Job.key_id == key_id,
        Job.request_sha256 == request_sha256,
        Job.created_at > func.now() - within,
        Job.deleted_at.is_(None),
    )
    return session.scalar(query.order_by(Job.id.desc()).limit(1))


def get(session: Session, project_id: str, job_id: str) -> Job:
    job = session.scalar(_one(project_id, job_id))
    if job is None:
        raise JobNotFound(job_id)
    return job


def read(connection: Connection, project_id: str, job_id: str) -> Row[Any]:
    """All columns of the job, under their names in Job: read by one statement, for those who change nothing."""
    row = connection.execute(_READ, {"project_id": project_id, "job_id": job_id}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return row


def by_fine_tuned_model(session: Session, project_id: str, model: str) -> Job | None:
    return session.scalar(select(Job).where(Job.project_id == project_id, Job.fine_tuned_model == model))


def delete_model(session: Session, project_id: str, model: str) -> None:
    """Unname the model that a job made, and let go of the adapter: its files and those of the job's checkpoints. The
    job itself, its events, metrics and other results stay."""
    named = select(Job).where(Job.project_id == project_id, Job.fine_tuned_model == model)
    job = session.scalar(named.with_for_update())
    if job is None:
        raise ModelNotFound(model)
    for file in files.by_ids(session, job.result_files):
        if file.filename.endswith(".safetensors") and file.deleted_at is None:
            files.delete(session, project_id, file.id)
    retention.let_go(session, Checkpoint.job_id == job.id)
    job.fine_tuned_model = None
    events.append(session, job.id, [NewEvent(f"The model {model} was deleted, with its adapter files.")])


def delete(session: Session, project_id: str, job_id: str) -> None:
    """Hide a job that has ended from its owner, with its model and the files that it made; its rows, checkpoints and
    events go later. Raises IllegalTransition for one that has not ended, FileInUse where another job reads a file."""
    job = _locked(session, project_id, job_id)
    if JobStatus(job.status) not in TERMINAL:
        raise IllegalTransition(job.id, "deleted", job.status)
    for file in files.by_ids(session, [*job.result_files, *events.sample_files(session, job.id)]):
        if file.deleted_at is None:
            files.delete(session, project_id, file.id)
    retention.let_go(session, Checkpoint.job_id == job.id)
    job.fine_tuned_model = None
    job.deleted_at = session.scalar(select(func.now()))


def statuses(session: Session, job_ids: Collection[str]) -> dict[str, JobStatus]:
    rows = session.execute(select(Job.id, Job.status).where(Job.id.in_(job_ids)))
    return {row.id: JobStatus(row.status) for row in rows}


def checkpoints(session: Session, job_id: str, *, after: str | None, limit: int) -> list[Checkpoint]:
    """Newest first, beyond the checkpoint ``after``. Raises CursorUnknown."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.id.desc()).limit(limit)
    if after is not None:
        pagination.position(
            session, select(Checkpoint.id).where(Checkpoint.id == after, Checkpoint.job_id == job_id), after
        )
        query = query.where(Checkpoint.id < after)
    return list(session.scalars(query))


def checkpoint_at(session: Session, job_id: str, step: int) -> Checkpoint | None:
    """The newest of this step: another attempt may have come to it again."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.step == step)
    return session.scalar(query.order_by(Checkpoint.attempt.desc()).limit(1))


def cancel(session: Session, project_id: str, job_id: str) -> Job:
    """At once if no worker runs it; otherwise request it of the worker. Of its finish and this, one wins."""
    job = _locked(session, project_id, job_id)
    if job.status == JobStatus.CANCELLED:
        return job
    if job.status == JobStatus.RUNNING:
        return _request(session, job, RequestedAction.CANCEL)
    return transition(session, job, JobStatus.CANCELLED, "Cancelled.", action="cancelled")


def pause(session: Session, project_id: str, job_id: str) -> Job:
    job = _locked(session, project_id, job_id)
    if job.status == JobStatus.PAUSED:
        return job
    if job.status == JobStatus.RUNNING:
        return _request(session, job, RequestedAction.PAUSE)
    return transition(session, job, JobStatus.PAUSED, "Paused.", action="paused")


def resume(session: Session, project_id: str, job_id: str) -> Job:
    """Back to the queue; on a job that has a pause requested and still runs, withdraw the request."""
    job = _locked(session, project_id, job_id)
    if job.status == JobStatus.QUEUED:
        return job
    if job.status == JobStatus.RUNNING and job.requested == RequestedAction.PAUSE:
        job.requested = None
        events.append(session, job.id, [NewEvent("Pause withdrawn.")])
        return job
    if job.status != JobStatus.PAUSED:
        raise IllegalTransition(job.id, "resumed", job.status)
    return transition(session, job, JobStatus.QUEUED, "Resumed; waiting for a worker.", action="resumed")


def transition(
    session: Session, job: Job, to: JobStatus, message: str, *, action: str, error: dict[str, Any] | None = None
) -> Job:
    """Move a job whose row is locked and that no worker owns; append the event. For workers: see job_leases."""
    if not may_become(JobStatus(job.status), to):
        raise IllegalTransition(job.id, action, job.status)
    now = session.scalar(select(func.clock_timestamp()))
    job.status = to
    job.lease_expires_at = None
    job.requested = None
    job.published_at = None
    if error is not None:
        job.error = error
    if to in TERMINAL:
        job.finished_at = now
    elif to is JobStatus.QUEUED:
        job.queued_at = now
    level: events.Level = "error" if to is JobStatus.FAILED else "info"
    data: Json = {"status": to} if error is None else {"status": to, "error": error}
    events.append(session, job.id, [NewEvent(message, level=level, data=data)])
    if to in TERMINAL:
        outbox.job_ended(session, job.id)
    return job


def files_ready(session: Session, file_id: str) -> list[str]:
    """A file was read or rejected: queue or fail the jobs that waited for it. Returns the ids of queued ones."""
    waiting = session.scalars(select(Job).where(_waits_for(file_id)).order_by(Job.id).with_for_update())
    queued: list[str] = []
    for job in waiting:
        sources = files.by_ids(session, [job.training_file_id, job.validation_file_id])
        failed = next((file for file in sources if file.status == "error"), None)
        if failed is not None:
            _fail_for_file(session, job, failed)
        elif all(file.status == "processed" for file in sources):
            transition(session, job, JobStatus.QUEUED, "Files read; waiting for a worker.", action="queued")
            queued.append(job.id)
    return queued


def append_to_waiting(session: Session, file_id: str, new_event: NewEvent) -> None:
    """Append an event about the reading of a file to the log of each job that waits for it."""
    for job_id in session.scalars(select(Job.id).where(_waits_for(file_id)).order_by(Job.id)):
        events.append(session, job_id, [new_event])


def _waits_for(file_id: str) -> ColumnElement[bool]:
    own = (Job.training_file_id == file_id) | (Job.validation_file_id == file_id)
    return (Job.status == JobStatus.VALIDATING_FILES) & own


def memory_needs(session: Session, job_ids: Collection[str]) -> dict[str, int | None]:
    """GiB of device memory; None where any worker will do."""
    found = session.execute(select(Job.id, Job.memory_gib).where(Job.id.in_(job_ids)))
    return {row.id: row.memory_gib for row in found}


def _columns(use: Literal["training", "validation"], source: PairSource | None) -> dict[str, str | int | None]:
    """Where a job's row says what its pairs are."""
    if isinstance(source, DatasetRevision):
        return {f"{use}_dataset_id": source.dataset_id, f"{use}_revision": source.number}
    return {f"{use}_file_id": source.id if source is not None else None}


def _fail_for_file(session: Session, job: Job, file: File) -> None:
    param = "training_file" if file.id == job.training_file_id else "validation_file"
    error = {"code": "invalid_file", "message": f"{file.id}: {file.status_details}", "param": param}
    transition(session, job, JobStatus.FAILED, f"File {file.id} cannot be used.", action="queued", error=error)


def _one(project_id: str, job_id: str) -> Select[Job]:
    owned: ColumnElement[bool] = (Job.id == job_id) & (Job.project_id == project_id)
    return select(Job).where(owned, Job.deleted_at.is_(None))


def _locked(session: Session, project_id: str, job_id: str) -> Job:
    job = session.scalar(_one(project_id, job_id).with_for_update())
    if job is None:
        raise JobNotFound(job_id)
    return job


def _request(session: Session, job: Job, request: RequestedAction) -> Job:
    if job.requested != request and job.requested != RequestedAction.CANCEL:
        job.requested = request
        events.append(session, job.id, [NewEvent(f"Asked to {request}; the worker stops at its next step.")])
    return job
