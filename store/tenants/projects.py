"""Projects and the limits that an operator gives them. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables.base import Json
from store.tables.project import Project
from store.tenants import api_keys


def every(session: Session) -> list[Project]:
    """By name."""
    return list(session.scalars(select(Project).order_by(Project.name)))


def own_limits(session: Session, project_id: str) -> Json:
    """Those that it has in place of the deployment's, by name."""
    return session.scalars(select(Project.limits).where(Project.id == project_id)).one()


def set_limits(session: Session, name: str, *, own: Json, dropped: Collection[str]) -> None:
    """``own`` are the project's from now on, ``dropped`` the deployment's again; the others stay as they are."""
    project = api_keys.ensure_project(session, name)
    session.refresh(project, with_for_update={"key_share": True})
    unchanged = {limit: value for limit, value in project.limits.items() if limit not in dropped}
    project.limits = unchanged | own
    session.flush()
