"""Projects and API keys. A key is 256 random bits, shown once; the table keeps its SHA-256. Nothing here commits."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.errors import InvalidKey
from store.ids import new_id
from store.models import ApiKey, Project

PREFIX = "pt-"
DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class Principal:
    """Who a request comes from."""

    key_id: str
    project_id: str


def ensure_project(session: Session, name: str) -> Project:
    project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        project = Project(id=new_id("proj"), name=name)
        session.add(project)
        session.flush()
    return project


def create(session: Session, project: Project, name: str) -> str:
    """Returns the key itself, which is kept nowhere."""
    secret = PREFIX + secrets.token_urlsafe(32)
    session.add(ApiKey(id=new_id("key"), project_id=project.id, name=name, prefix=secret[:10], sha256=_digest(secret)))
    session.flush()
    return secret


def authenticate(session: Session, secret: str) -> Principal:
    """The look-up is by digest, so its time tells nothing about any stored key."""
    key = session.scalar(select(ApiKey).where(ApiKey.sha256 == _digest(secret), ApiKey.revoked_at.is_(None)))
    if key is None:
        raise InvalidKey
    return Principal(key.id, key.project_id)


def every(session: Session) -> list[tuple[ApiKey, str]]:
    """All keys, revoked ones too, oldest first, each with its project's name."""
    query = select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id).order_by(ApiKey.id)
    return [(key, name) for key, name in session.execute(query)]


def revoke(session: Session, key_id: str) -> bool:
    """True when there was such a key and it was still valid."""
    revoked = session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiKey.id)
    )
    return revoked.one_or_none() is not None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
