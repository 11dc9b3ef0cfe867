"""The table of files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table
from store.tables.lease import Leased


class File(Leased, Table):
    """An uploaded or produced file. An intake worker leases an upload, reads it into ``pairs_sha256``, and reports.

    ``status`` is uploaded, processed or error. ``policy`` is what the uploader decided about doubtful rows
    (intake.Policy), ``progress`` how far the reading is. ``images_bytes`` are those of its images as they are stored.
    """

    __tablename__ = "files"
    __table_args__ = (
        CheckConstraint("status IN ('uploaded', 'processed', 'error')", name="status"),
        Index(None, "project_id", "id"),
        Index("ix_files_waiting", "id", postgresql_where=text("status = 'uploaded' AND deleted_at IS NULL")),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    status: Mapped[str]
    status_details: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    pairs_sha256: Mapped[str | None]
    pairs_count: Mapped[int | None]
    images_bytes: Mapped[int | None]
    report: Mapped[Json | None]
    policy: Mapped[Json | None]
    progress: Mapped[Json | None]
