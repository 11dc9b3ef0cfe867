"""Projects and API keys. A key is 256 random bits, shown once; the table keeps its SHA-256. Nothing here commits."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, func, select, update
from sqlalchemy.orm import Session

from store.errors import InvalidKey
from store.ids import new_id
from store.roles import Role
from store.tables.project import ApiKey, Project
from store.tenants.limits import UNLIMITED, ProjectLimits

PREFIX = "pt-"
DEFAULT_PROJECT = "default"
USE_NOTED_EVERY = timedelta(minutes=1)  # each note is a write, and no request should wait for one


@dataclass(frozen=True)
class Principal:
    """Who a request comes from, and what its project may use."""

    key_id: str
    project_id: str
    role: Role
    limits: ProjectLimits
    use_is_noted: bool


def ensure_project(session: Session, name: str) -> Project:
    project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        project = Project(id=new_id("proj"), name=name)
        session.add(project)
        session.flush()
    return project


def create(session: Session, project: Project, name: str, role: Role = Role.MEMBER) -> str:
    """Returns the key itself, which is stored nowhere."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(id=new_id("key"), project_id=project.id, name=name, role=role)
    key.prefix, key.sha256 = secret[:10], _digest(secret)
    session.add(key)
    session.flush()
    return secret


def authenticate(session: Session | Connection, secret: str, limits: ProjectLimits = UNLIMITED) -> Principal:
    """The query is by digest, so its time reveals nothing about any stored key. ``limits``: the deployment's."""
    query = select(ApiKey.id, ApiKey.project_id, ApiKey.role, Project.limits, _use_is_noted())
    query = query.join(Project, Project.id == ApiKey.project_id)
    found = session.execute(query.where(ApiKey.sha256 == _digest(secret), ApiKey.revoked_at.is_(None))).one_or_none()
    if found is None:
        raise InvalidKey
    key_id, project_id, role, own, noted = found
    return Principal(key_id, project_id, Role(role), limits.with_own(own), noted)


def note_use(session: Session, key_id: str) -> None:
    """That the key is in use, unless it was noted a moment ago."""
    session.execute(
        update(ApiKey).where(ApiKey.id == key_id, ~_use_is_noted()).values(last_used_at=func.clock_timestamp())
    )


def every(session: Session) -> list[tuple[ApiKey, str]]:
    """All keys, revoked ones too, oldest first, each with its project's name."""
    query = select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id).order_by(ApiKey.id)
    return [(key, name) for key, name in session.execute(query)]


def revoke(session: Session, key_id: str) -> str | None:
    """The project's id when there was such a key and it was still valid."""
    revoked = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKey.project_id)
    )
    return revoked.scalar_one_or_none()


def _use_is_noted() -> ColumnElement[bool]:
    noted = ApiKey.last_used_at > func.clock_timestamp() - USE_NOTED_EVERY
    return func.coalesce(noted, False)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
