"""Waiting for images, for any number of requests: one look at the database serves all of them.

A request that waits holds neither a thread nor a connection to the database.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool

from store.database import Sessions
from store.generations import generations

log = structlog.get_logger()

LOOK_SECONDS = 0.25


class Waiting:
    """Belongs to one event loop. ``close`` ends every wait."""

    def __init__(self, sessions: Sessions, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._sessions = sessions
        self._look_seconds = look_seconds
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    async def until_ended(self, generation_id: str, *, seconds: float) -> None:
        """Returns when it has ended, or after that long: the caller looks which."""
        ended = asyncio.Event()
        self._waiting.setdefault(generation_id, set()).add(ended)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_out())
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), seconds)
        finally:
            others = self._waiting.get(generation_id, set())
            others.discard(ended)
            if not others:
                self._waiting.pop(generation_id, None)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._tell(set(self._waiting))

    async def _look_out(self) -> None:
        while self._waiting:
            try:
                self._tell(await run_in_threadpool(self._read, list(self._waiting)))
            except (OperationalError, PoolTimeout) as error:
                log.warning("images.not_looked_for", reason=str(error))
            await asyncio.sleep(self._look_seconds)

    def _read(self, generation_ids: list[str]) -> set[str]:
        with self._sessions() as session:
            return generations.ended(session, generation_ids)

    def _tell(self, generation_ids: set[str]) -> None:
        for generation_id in generation_ids:
            for ended in self._waiting.get(generation_id, ()):
                ended.set()
