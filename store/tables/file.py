"""The table of files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table


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
