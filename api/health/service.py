"""Whether everything that the API needs answers."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.backends import Backends
from api.errors import NotReady
from api.health.schemas import Ready, State
from store.database import Sessions


def check(backends: Backends) -> Ready:
    """Raises NotReady, which says which part does not answer."""
    checks: dict[str, State] = {
        "database": _state(_database(backends.sessions)),
        "broker": _state(backends.hints.reachable()),
        "blobs": _state(backends.blobs.reachable()),
    }
    if set(checks.values()) != {"ok"}:
        raise NotReady({name: str(state) for name, state in checks.items()})
    return Ready(checks=checks)


def _state(reachable: bool) -> State:
    return "ok" if reachable else "no answer"


def _database(sessions: Sessions) -> bool:
    try:
        with sessions() as session:
            session.execute(text("SELECT 1"))
    except (OperationalError, PoolTimeout):
        return False
    return True
