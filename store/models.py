"""The tables. PostgreSQL is the only truth: a Celery message is a hint, a blob is bytes that a row names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.job_state import TERMINAL, JobStatus
from store.roles import Role

Json = dict[str, Any]
MOST_PRIORITY = 10


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        Json: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
    }


class Project(Table):
    """A tenant: every file, job and key belongs to one. ``limits`` are those that differ from the deployment's,
    ``served_at`` is when a worker last took a job of its."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    limits: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    served_at: Mapped[datetime | None]


class ApiKey(Table):
    """A bearer key; only its SHA-256 is kept, with a prefix to recognise it by.

    ``last_used_at`` is right to a minute.
    """

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint(f"role IN ({', '.join(repr(str(r)) for r in Role)})", name="role"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    role: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class File(Table):
    """An uploaded or produced file. The intake worker turns an upload into ``pairs_sha256``, and reports.

    ``policy`` is what the uploader decided about doubtful rows (intake.Policy), ``progress`` how far the reading is.

    ``status`` is uploaded, processed or error. ``attempt`` and ``lease_expires_at`` fence the intake worker; of the
    attempts, ``crashes`` broke off by themselves.
    """

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint("status IN ('uploaded', 'processed', 'error')", name="status"),
        Index(None, "project_id", "id"),
        Index("ix_files_waiting", "id", postgresql_where=text("status = 'uploaded' AND deleted_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    status: Mapped[str]
    status_details: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    lease_expires_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    pairs_sha256: Mapped[str | None]
    pairs_count: Mapped[int | None]
    report: Mapped[Json | None]
    policy: Mapped[Json | None]
    progress: Mapped[Json | None]


class Job(Table):
    """A fine-tuning job. ``attempt`` is the fencing token: it grows with each claim, and every write of a worker
    names it; ``training_seconds`` is what the attempts that have ended took. ``spec`` is the RunSpec that validated
    the request; ``progress`` the trainer's latest progress. ``key_id`` and ``request_sha256`` tell a client's retry of
    the same create from a second job. Its pairs are those of a file, or of a data set at the revision that it had when
    the job was created. ``memory_gib`` is the device memory that a worker needs to take it (store/memory_classes.py);
    ``queued_at`` is when it last joined the queue, ``claimed_at`` when it was last taken from it
    (store/queue.py)."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(s)) for s in JobStatus)})", name="status"),
        CheckConstraint("requested IN ('cancel', 'pause')", name="requested"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease_when_running"),
        CheckConstraint(f"priority BETWEEN {-MOST_PRIORITY} AND {MOST_PRIORITY}", name="priority"),
        CheckConstraint("status != 'queued' OR queued_at IS NOT NULL", name="queued_since"),
        CheckConstraint("num_nonnulls(training_file_id, training_dataset_id) = 1", name="training_source"),
        CheckConstraint("num_nonnulls(validation_file_id, validation_dataset_id) <= 1", name="validation_source"),
        CheckConstraint("(training_dataset_id IS NULL) = (training_revision IS NULL)", name="training_pinned"),
        CheckConstraint("(validation_dataset_id IS NULL) = (validation_revision IS NULL)", name="validation_pinned"),
        ForeignKeyConstraint(
            ["training_dataset_id", "training_revision"], ["dataset_revisions.dataset_id", "dataset_revisions.number"]
        ),
        ForeignKeyConstraint(
            ["validation_dataset_id", "validation_revision"],
            ["dataset_revisions.dataset_id", "dataset_revisions.number"],
        ),
        Index(None, "project_id", "id"),
        Index("ix_jobs_queued", "queued_at", postgresql_where=text("status = 'queued'")),
        Index(
            "ix_jobs_metadata",
            "job_metadata",
            postgresql_using="gin",
            postgresql_ops={"job_metadata": "jsonb_path_ops"},
        ),
        Index("ix_jobs_models", "project_id", "id", postgresql_where=text("fine_tuned_model IS NOT NULL")),
        Index("ix_jobs_succeeded", "id", postgresql_where=text("status = 'succeeded'")),
        Index("ix_jobs_request", "key_id", "request_sha256", postgresql_where=text("request_sha256 IS NOT NULL")),
        Index(
            "ix_jobs_live",
            "status",
            "id",
            postgresql_where=text(f"status NOT IN ({', '.join(repr(str(s)) for s in sorted(TERMINAL))})"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str]
    spec: Mapped[Json]
    training_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"), index=True)
    training_dataset_id: Mapped[str | None]
    training_revision: Mapped[int | None]
    validation_file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"), index=True)
    validation_dataset_id: Mapped[str | None]
    validation_revision: Mapped[int | None]
    suffix: Mapped[str | None]
    job_metadata: Mapped[Json | None]
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    request_sha256: Mapped[str | None]
    requested: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    worker: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    training_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    lease_expires_at: Mapped[datetime | None]
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    memory_gib: Mapped[int | None]
    queued_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    fine_tuned_model: Mapped[str | None] = mapped_column(unique=True)
    result_files: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    estimated_finish: Mapped[datetime | None]


class JobEvent(Table):
    """What happened to a job, in order. ``attempt`` is the fencing token of the writer, or 0 for the service."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "sequence"),)

    sequence: Mapped[int] = mapped_column(Identity(), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[Json | None]


class Checkpoint(Table):
    """A whole checkpoint in the blob store; ``manifest`` maps file names to ``{"sha256", "bytes"}``."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step", "attempt", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    step: Mapped[int]
    metrics: Mapped[Json]
    manifest: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


# Tables with a file of their own; they build on Table, so they come last.
import store.dataset_tables  # noqa: E402
import store.generation_tables  # noqa: E402
import store.idempotency_table  # noqa: E402
import store.signal_tables  # noqa: E402
import store.upload_tables  # noqa: E402
import store.webhook_tables  # noqa: E402, F401
