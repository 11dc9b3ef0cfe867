"""The tables of fine-tuning jobs, their events and their checkpoints."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Double, ForeignKey, ForeignKeyConstraint, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.job_status import TERMINAL, JobStatus
from store.tables.base import Json, Table
from store.tables.lease import Leased

MAX_PRIORITY = 10


class Job(Leased, Table):
    """A fine-tuning job, which a training worker leases.

    ``spec`` is the RunSpec that validated the request. The pairs are those of a file, or of a dataset at the revision
    that it had when the job was created. ``key_id`` and ``request_sha256`` distinguish a client's retry of the same
    create from a second job. ``requested`` is a RequestedAction that the worker has not carried out yet.

    ``queued_at`` is when the job last joined the queue, ``claimed_at`` when a worker last took it from there
    (store/jobs/queue.py). ``memory_gib`` is the device memory that a worker needs to take it (store/gpu_classes.py).
    ``older_form``: the request had OpenAI's older form (api/fine_tuning/top_level.py), and so has the job as shown.
    ``training_seconds`` is what the attempts that have ended took; ``progress`` the trainer's latest progress.
    A deleted one (``deleted_at``) is shown no more, and its rows go later (store/erasure.py).
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(s)) for s in JobStatus)})", name="status"),
        CheckConstraint("requested IN ('cancel', 'pause')", name="requested"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease_when_running"),
        CheckConstraint(f"priority BETWEEN {-MAX_PRIORITY} AND {MAX_PRIORITY}", name="priority"),
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
        Index(
            "ix_jobs_training_revision",
            "training_dataset_id",
            "training_revision",
            postgresql_where=text("training_dataset_id IS NOT NULL"),
        ),
        Index(
            "ix_jobs_validation_revision",
            "validation_dataset_id",
            "validation_revision",
            postgresql_where=text("validation_dataset_id IS NOT NULL"),
        ),
        Index("ix_jobs_succeeded", "id", postgresql_where=text("status = 'succeeded'")),
        Index("ix_jobs_request", "key_id", "request_sha256", postgresql_where=text("request_sha256 IS NOT NULL")),
        Index(
            "ix_jobs_live",
            "status",
            "id",
            postgresql_where=text(f"status NOT IN ({', '.join(repr(str(s)) for s in sorted(TERMINAL))})"),
        ),
    )

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
    worker: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    training_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    memory_gib: Mapped[int | None]
    older_form: Mapped[bool] = mapped_column(server_default=text("false"))
    queued_at: Mapped[datetime | None]
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    fine_tuned_model: Mapped[str | None] = mapped_column(unique=True)
    result_files: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    estimated_finish: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


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
    """A whole checkpoint in the blob store; ``manifest`` maps file names to ``{"sha256", "bytes"}``, and is empty once
    its files are let go; ``bytes`` is their sum."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step", "attempt", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    step: Mapped[int]
    metrics: Mapped[Json]
    manifest: Mapped[Json]
    bytes: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
