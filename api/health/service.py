"""Whether everything that the API needs answers."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.backends import Backends
from api.errors import NotReady
from api.health.schemas import Ready, State
from store import disk_space
from store.database import Sessions

# Without these no request can be answered. Without a broker jobs wait, and a full disk hinders no download.
NEEDED = ("database", "blobs")


def check(backends: Backends) -> Ready:
    """Raises NotReady, which says which needed part does not answer."""
    checks: dict[str, State] = {
        "database": _state(_database(backends.sessions)),
        "broker": _state(backends.hints.reachable()),
        "blobs": _state(backends.blobs.reachable()),
        "disk": "low" if disk_space.short(backends.settings, disk_space.of_the_api(backends.settings)) else "ok",
    }
    missing = [name for name in NEEDED if checks[name] != "ok"]
    if missing:
        raise NotReady({name: str(state) for name, state in checks.items()}, missing)
    return Ready(status="ok" if set(checks.values()) == {"ok"} else "degraded", checks=checks)


def _state(reachable: bool) -> State:
    return "ok" if reachable else "no answer"


def _database(sessions: Sessions) -> bool:
    try:
        with sessions() as session:
            session.execute(text("SELECT 1"))
    except (OperationalError, PoolTimeout):
        return False
    return True
