"""Following jobs' events as they come, for any number of clients: one look at the database serves all of them.

A follower holds no connection to the database while it waits. It reads what is there already by itself, then takes
what the watch, one task of this process, finds at each look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool

from store.database import Sessions
from store.job_status import TERMINAL, JobStatus
from store.jobs import events, jobs
from store.tables.job import JobEvent

log = structlog.get_logger()

LOOK_SECONDS = 0.5
BATCH = 1000  # events of one look
BACKLOG = 2000  # events that a client may lag behind; it is cut off then, and comes back for the rest


@dataclass(frozen=True)
class News:
    """``ended`` is the job's final state, once all of its events were told. ``lagged``: this follower is cut off."""

    events: tuple[JobEvent, ...] = ()
    ended: JobStatus | None = None
    lagged: bool = False


@dataclass
class Watched:
    """A job that somebody follows: its log was read up to ``sequence``."""

    sequence: int
    followers: set[asyncio.Queue[News]] = field(default_factory=set)


class Watch:
    """Belongs to one event loop. ``close`` ends every follower."""

    def __init__(self, sessions: Sessions, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._sessions = sessions
        self._look_seconds = look_seconds
        self._watched: dict[str, Watched] = {}
        self._task: asyncio.Task[None] | None = None

    async def follow(self, job_id: str, sequence: int) -> AsyncIterator[News]:
        """Everything after ``sequence``, oldest first, until the job has ended or the follower lags too far behind."""
        queue: asyncio.Queue[News] = asyncio.Queue(BACKLOG)
        while True:
            news = await run_in_threadpool(self._read, {job_id: sequence})
            found, ended = news[job_id]
            if found:
                sequence = found[-1].sequence
            if found or ended is not None:
                yield News(tuple(found), ended if len(found) < BATCH else None)
            if ended is not None and len(found) < BATCH:
                return
            if len(found) < BATCH and sequence >= self._enter(job_id, sequence, queue):
                break  # from here on the watch tells
        try:
            while True:
                latest = await queue.get()
                fresh = tuple(event for event in latest.events if event.sequence > sequence)
                if fresh:
                    sequence = fresh[-1].sequence
                yield News(fresh, latest.ended, latest.lagged)
                if latest.ended is not None or latest.lagged:
                    return
        finally:
            self._leave(job_id, queue)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for watched in self._watched.values():
            for queue in watched.followers:
                _tell(queue, News(lagged=True))

    def _enter(self, job_id: str, sequence: int, queue: asyncio.Queue[News]) -> int:
        """Where the watch of this job stands; the follower is in only if it has read that far."""
        watched = self._watched.setdefault(job_id, Watched(sequence))
        if sequence >= watched.sequence:
            watched.followers.add(queue)
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look_out())
        return watched.sequence

    def _leave(self, job_id: str, queue: asyncio.Queue[News]) -> None:
        watched = self._watched.get(job_id)
        if watched is not None:
            watched.followers.discard(queue)
            if not watched.followers:
                del self._watched[job_id]

    async def _look_out(self) -> None:
        while self._watched:
            await asyncio.sleep(self._look_seconds)
            try:
                found = await run_in_threadpool(
                    self._read, {job_id: watched.sequence for job_id, watched in self._watched.items()}
                )
            except (OperationalError, PoolTimeout) as error:
                log.warning("events.not_read", reason=str(error))
                continue
            for job_id, (fresh, ended) in found.items():
                watched = self._watched.get(job_id)
                if watched is None or not (fresh or ended):
                    continue
                if fresh:  # the look may have begun before these followers came, who have read further by themselves
                    watched.sequence = max(watched.sequence, fresh[-1].sequence)
                for queue in list(watched.followers):
                    _tell(queue, News(tuple(fresh), ended))

    def _read(self, seen: dict[str, int]) -> dict[str, tuple[list[JobEvent], JobStatus | None]]:
        """Of each job its new events, and how it ended if these are the last. The state is read first: what is said
        after a job has ended would be told late, but nothing that was said before would be lost."""
        with self._sessions() as session:
            states = jobs.statuses(session, seen)
            fresh = events.after_each(session, seen, limit=BATCH)
        whole = len(fresh) < BATCH
        of: dict[str, list[JobEvent]] = {job_id: [] for job_id in seen}
        for event in fresh:
            of[event.job_id].append(event)
        return {
            job_id: (told, state if whole and (state := states.get(job_id)) in TERMINAL else None)
            for job_id, told in of.items()
        }


def _tell(queue: asyncio.Queue[News], news: News) -> None:
    try:
        queue.put_nowait(news)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(News(lagged=True))
