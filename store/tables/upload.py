"""The tables of uploads that come in parts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table


class Upload(Table):
    """A file that arrives in parts. ``bytes`` is what the client declared; ``file_id`` what the parts became.

    ``swept_at`` says since when no bytes of its parts can be left in the blob store.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'completed', 'cancelled', 'expired')", name="status"),
        CheckConstraint("(status = 'completed') = (file_id IS NOT NULL)", name="file_when_completed"),
        CheckConstraint("(status = 'pending') = (ended_at IS NULL)", name="end_when_not_pending"),
        Index("ix_uploads_pending", "expires_at", postgresql_where=text("status = 'pending'")),
        Index("ix_uploads_unswept", "ended_at", postgresql_where=text("status != 'pending' AND swept_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    policy: Mapped[Json | None]
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    swept_at: Mapped[datetime | None]


class UploadPart(Table):
    """A part that has arrived whole; its bytes lie in the blob store until the upload ends."""

    __tablename__ = "upload_parts"
    __table_args__ = (Index(None, "upload_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"))
    bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
