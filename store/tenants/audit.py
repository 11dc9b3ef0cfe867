"""The audit log: an entry is committed with what it reports, or not at all. Nothing here commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store import pagination
from store.ids import new_id
from store.tables.audit import NEW_ADDRESS, AuditEntry
from store.tables.base import Json
from store.tables.project import Project

Action = Literal[
    "key.created",
    "key.revoked",
    "key.used_from_new_address",
    "limits.changed",
    "webhook.created",
    "webhook.rotated",
    "webhook.deleted",
    "file.deleted",
    "dataset.deleted",
    "dataset.pair_deleted",
    "model.deleted",
    "job.deleted",
    "image_generation.deleted",
    "project.deleted",
]
MAX_ADDRESSES = 1000  # of a key: whoever has one can make up addresses, and each would be a row


@dataclass(frozen=True)
class Actor:
    """Who acts on a project: a key from an address, or an operator at the command line."""

    project_id: str | None
    key_id: str | None = None
    operator: str | None = None
    address: str | None = None


def record(session: Session, actor: Actor, action: Action, subject: str, details: Json | None = None) -> None:
    session.add(
        AuditEntry(
            id=new_id("audit"),
            action=action,
            subject=subject,
            project_id=actor.project_id,
            key_id=actor.key_id,
            operator=actor.operator,
            address=actor.address,
            details=details or {},
        )
    )


def record_address(session: Session, actor: Actor) -> None:
    """That the key was used from its address, once for each address."""
    of_key = (AuditEntry.key_id == actor.key_id, AuditEntry.action == NEW_ADDRESS)
    count = session.scalars(select(func.count()).select_from(AuditEntry).where(*of_key)).one()
    if count < MAX_ADDRESSES:
        row = insert(AuditEntry).values(
            id=new_id("audit"),
            action=NEW_ADDRESS,
            subject=actor.key_id,
            project_id=actor.project_id,
            key_id=actor.key_id,
            address=actor.address,
        )
        session.execute(row.on_conflict_do_nothing())


def newest_first(
    session: Session, project_id: str, *, action: str | None, after: str | None, limit: int
) -> list[AuditEntry]:
    """A project's entries beyond the entry ``after``. Raises CursorUnknown."""
    query = select(AuditEntry).where(AuditEntry.project_id == project_id).order_by(AuditEntry.id.desc()).limit(limit)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if after is not None:
        known = select(AuditEntry.id).where(AuditEntry.project_id == project_id, AuditEntry.id == after)
        pagination.position(session, known, after)
        query = query.where(AuditEntry.id < after)
    return list(session.scalars(query))


def latest(
    session: Session, *, project: str | None, action: str | None, limit: int
) -> list[tuple[AuditEntry, str | None]]:
    """Newest first, of all projects or of the one of this name, each with its project's name."""
    query = select(AuditEntry, Project.name).outerjoin(Project, Project.id == AuditEntry.project_id)
    if project is not None:
        query = query.where(Project.name == project)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    return [(entry, name) for entry, name in session.execute(query.order_by(AuditEntry.id.desc()).limit(limit))]


def delete_expired(session: Session, *, days: float) -> None:
    session.execute(delete(AuditEntry).where(AuditEntry.created_at < func.clock_timestamp() - timedelta(days=days)))
