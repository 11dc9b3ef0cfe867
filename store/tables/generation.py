"""The table of image generations."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table
from store.tables.lease import Leased

# The error's code of a generation that its owner cancelled. No state of its own: services of an older version read it.
CANCELLED = "cancelled"


class GenerationStatus(StrEnum):
    """Queued, running, back to queued when a worker stops or crashes, and one end."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Generation(Leased, Table):
    """Images to be generated, then generated; a generation worker leases them.

    ``spec`` is a SampleSpec, ``weights`` the adapter's files that it needs (name -> SHA-256), ``model`` the name in the
    request; ``result`` holds ``images`` (SHA-256 and bytes of each, in order) and how they were generated; ``bytes`` is
    the sum of the images'.
    ``cancel_requested``: its owner wants none of it any more, and its worker has to end. A cancelled one has failed
    with CANCELLED as the code of its error. A deleted one is shown no more, and its row goes later.
    ``key_id`` and ``request_sha256`` distinguish a client's retry of the same request from a second one.
    """

    __tablename__ = "generations"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(s)) for s in GenerationStatus)})", name="status"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease_when_running"),
        Index(None, "project_id", "id"),
        Index(None, "key_id", "request_sha256"),
        Index("ix_generations_live", "status", "id", postgresql_where=text("status IN ('queued', 'running')")),
    )

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str]
    model: Mapped[str]
    spec: Mapped[Json]
    weights: Mapped[Json]
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    request_sha256: Mapped[str]
    worker: Mapped[str | None]
    result: Mapped[Json | None]
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    bytes: Mapped[int] = mapped_column(server_default=text("0"))
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    deleted_at: Mapped[datetime | None]
