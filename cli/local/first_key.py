"""The first start's API key: written to a file that only its owner can read."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from sqlalchemy.orm import Session

from store.database import open_engine, open_sessions
from store.errors import InvalidKey
from store.roles import Role
from store.tenants import api_keys, audit


def ensure_local_key(database_url: str, path: Path) -> str | None:
    """A new key when the file holds none that works (returned, to be shown once); otherwise None."""
    engine = open_engine(database_url, pool_size=1)
    with open_sessions(engine).begin() as session:
        if path.exists() and _works(session, path.read_text(encoding="ascii").strip()):
            key = None
        else:
            project = api_keys.ensure_project(session, api_keys.DEFAULT_PROJECT)
            key = api_keys.create(session, project, "local", Role.ADMIN)
            key_id = api_keys.authenticate(session, key).key_id
            operator = audit.Actor(project.id, operator=operator_name())
            audit.record(session, operator, "key.created", key_id, {"name": "local", "role": Role.ADMIN})
            _write_private(path, key)
    engine.dispose()
    return key


def operator_name() -> str:
    """For the audit log: the user of this machine who runs the command."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _works(session: Session, secret: str) -> bool:
    try:
        api_keys.authenticate(session, secret)
    except InvalidKey:
        return False
    return True


def _write_private(path: Path, secret: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
    partial.replace(path)
