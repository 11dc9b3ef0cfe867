"""The tables of tenants: projects and their API keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.roles import Role
from store.tables.base import Json, Table


class Project(Table):
    """A tenant: every file, job and key belongs to one. ``limits`` are those that differ from the deployment's,
    ``served_at``, ``intake_served_at`` and ``generation_served_at`` are when a worker last took a job, an upload or a
    generation of it (store/turns.py)."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    limits: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    served_at: Mapped[datetime | None]
    intake_served_at: Mapped[datetime | None]
    generation_served_at: Mapped[datetime | None]


class ApiKey(Table):
    """A bearer key; only its SHA-256 is stored, with a prefix to distinguish it by.

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
