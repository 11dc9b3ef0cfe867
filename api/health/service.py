"""Whether everything that the API needs answers."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.dependencies import Dependencies
from api.errors.errors import NotReady
from api.health.schemas import Ready, State
from migrations.revision import outdated
from store.blobs import disk_space
from store.database import Sessions

# Without these no request can be answered. Without a broker jobs wait, and a full disk hinders no download.
NEEDED = ("database", "blobs")


def check(dependencies: Dependencies) -> Ready:
    """Raises NotReady, which says which needed part does not answer, or that the database is an older version's."""
    checks: dict[str, State] = {
        "database": _database(dependencies.sessions),
        "broker": _state(dependencies.hints.reachable()),
        "blobs": _state(dependencies.blobs.reachable()),
        "disk": "low"
        if disk_space.short(dependencies.settings, disk_space.of_the_api(dependencies.settings))
        else "ok",
    }
    if any(checks[name] != "ok" for name in NEEDED):
        silent = [name for name in NEEDED if checks[name] == "no answer"]
        raise NotReady(dict(checks), silent)
    return Ready(status="ok" if set(checks.values()) == {"ok"} else "degraded", checks=checks)


def _state(reachable: bool) -> State:
    return "ok" if reachable else "no answer"


def _database(sessions: Sessions) -> State:
    try:
        with sessions() as session:
            return "outdated" if outdated(session.connection()) else "ok"
    except (OperationalError, PoolTimeout):
        return "no answer"
