"""Whether everything that the API needs answers."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool

from api.dependencies import Dependencies
from api.errors.errors import NotReady
from api.health.schemas import Ready, State
from migrations.revision import outdated
from store.blobs import disk_space
from store.database import Sessions

# Without these no request can be answered. Without a broker jobs wait, and a full disk hinders no download.
NEEDED = ("database", "blobs")


# Whoever asks, and how often: the checks write to the blob store. A bad answer is known for a shorter time.
KNOWN_SECONDS, NOT_READY_SECONDS = 5.0, 1.0


class Readiness:
    """The last answer, good or bad, for a few seconds."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._found: Ready | NotReady | None = None

    async def check(self, dependencies: Dependencies) -> Ready:
        """Raises NotReady."""
        async with self._lock:  # concurrent callers wait for the same check, without a thread each
            if self._found is None or time.monotonic() >= self._until:
                self._found = await run_in_threadpool(_answer, dependencies)
                seconds = NOT_READY_SECONDS if isinstance(self._found, NotReady) else KNOWN_SECONDS
                self._until = time.monotonic() + seconds
            found = self._found
        if isinstance(found, NotReady):
            raise NotReady(found.checks, found.silent)
        return found


def _answer(dependencies: Dependencies) -> Ready | NotReady:
    try:
        return _check(dependencies)
    except NotReady as error:
        return error


def _check(dependencies: Dependencies) -> Ready:
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
