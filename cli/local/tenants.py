"""Projects, keys and the audit log as `pairtune keys`, `projects` and `audit` show them: rows as plain documents.

Imported by those commands when they run: SQLAlchemy takes a second, which no other command should wait for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime

from cli.configured import settings
from cli.errors import CommandError
from cli.local.database import database_session
from cli.local.first_key import operator_name
from cli.local.local_limits import unlimited
from store import erasure
from store.blobs import upload_parts
from store.blobs.blobs import Blobs
from store.files import uploads
from store.roles import Role
from store.tables.base import Json
from store.tables.project import Project
from store.tenants import api_keys, audit, limits, projects
from store.tenants.limits import NAMES as LIMITS

__all__ = [
    "LIMITS",
    "audit_entries",
    "every_key",
    "every_project",
    "new_key",
    "revoked",
    "with_limits",
    "without_project",
]


def new_key(name: str, project: str | None, role: Role) -> Json:
    """``key`` is the key itself, which is stored nowhere."""
    project = project or api_keys.DEFAULT_PROJECT
    with database_session() as session:
        owner = api_keys.ensure_project(session, project)
        secret = api_keys.create(session, owner, name, role)
        key_id = api_keys.authenticate(session, secret).key_id
        audit.record(session, _operator(owner.id), "key.created", key_id, {"name": name, "role": role})
    return {"id": key_id, "key": secret, "name": name, "project": project, "role": role}


def every_key() -> list[Json]:
    with database_session() as session:
        return [
            {
                "id": key.id,
                "prefix": key.prefix,
                "name": key.name,
                "project": project,
                "role": key.role,
                "created": _shown(key.created_at),
                "last_used": _shown(key.last_used_at),
                "revoked": _shown(key.revoked_at),
            }
            for key, project in api_keys.every(session)
        ]


def revoked(key_id: str) -> bool:
    """Whether there was such a key and it was still valid."""
    with database_session() as session:
        project_id = api_keys.revoke(session, key_id)
        if project_id is not None:
            audit.record(session, _operator(project_id), "key.revoked", key_id)
        return project_id is not None


def every_project() -> list[Json]:
    with database_session() as session:
        return [_described(project) for project in projects.every(session)]


def with_limits(name: str, own: Json, dropped: Collection[str]) -> Json:
    """The project, made if there is none of this name, with these limits of its own and without those."""
    with database_session() as session:
        projects.set_limits(session, name, own=own, dropped=dropped)
        project = api_keys.ensure_project(session, name)
        if own or dropped:
            changes = {"own": own, "default": sorted(dropped)}
            audit.record(session, _operator(project.id), "limits.changed", project.id, changes)
        return _described(project)


def audit_entries(project: str | None, action: str | None, limit: int) -> list[Json]:
    """Newest first."""
    with database_session() as session:
        return [
            {
                "id": entry.id,
                "at": _shown(entry.created_at),
                "action": entry.action,
                "subject": entry.subject,
                "project": name or entry.project_id,
                "by": entry.key_id or f"operator {entry.operator}",
                "address": entry.address,
                "details": entry.details,
            }
            for entry, name in audit.latest(session, project=project, action=action, limit=limit)
        ]


def _operator(project_id: str) -> audit.Actor:
    return audit.Actor(project_id, operator=operator_name())


def without_project(name: str) -> dict[str, int]:
    """Erase the project; returns how many rows of which table went. Raises CommandError if there is none."""
    with database_session() as session:
        project = next((one for one in projects.every(session) if one.name == name), None)
        if project is None:
            raise CommandError(f"There is no project {name!r}; `pairtune projects list` lists them.")
        in_parts = uploads.of_project(session, project.id)
        erased = erasure.erase_project(session, project.id)
        audit.record(session, _operator(project.id), "project.deleted", project.id, {"rows": sum(erased.values())})
    store = Blobs(settings().effective_blob_url).store
    for upload_id in in_parts:
        upload_parts.remove(store, upload_id)
    return erased


def _described(project: Project) -> Json:
    used = _deployment().with_own(project.limits)
    return {"id": project.id, "name": project.name, **asdict(used), "own": sorted(project.limits)}


def _deployment() -> limits.ProjectLimits:
    configured = settings()
    if configured.database_url is None and unlimited(configured):  # a project of `up`
        configured = configured.model_copy(update={"requests_per_minute": None})
    return limits.defaults(configured)


def _shown(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
