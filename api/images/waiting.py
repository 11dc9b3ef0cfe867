"""Requests that wait for a generation: one poll of the database serves all of them.

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

POLL_SECONDS = 0.25


class GenerationWaiters:
    """Belongs to one event loop. ``close`` ends every wait."""

    def __init__(self, sessions: Sessions, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._sessions = sessions
        self._poll_seconds = poll_seconds
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    async def until_ended(self, generation_id: str, *, seconds: float) -> None:
        """Returns when the generation has ended, or after ``seconds``: the caller reads its state."""
        ended = asyncio.Event()
        self._waiting.setdefault(generation_id, set()).add(ended)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
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
        self._wake(set(self._waiting))

    async def _poll(self) -> None:
        while self._waiting:
            try:
                self._wake(await run_in_threadpool(self._read, list(self._waiting)))
            except (OperationalError, PoolTimeout) as error:
                log.warning("images.not_looked_for", reason=str(error))
            await asyncio.sleep(self._poll_seconds)

    def _read(self, generation_ids: list[str]) -> set[str]:
        with self._sessions() as session:
            return generations.ended(session, generation_ids)

    def _wake(self, generation_ids: set[str]) -> None:
        for generation_id in generation_ids:
            for ended in self._waiting.get(generation_id, ()):
                ended.set()
