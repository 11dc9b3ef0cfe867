"""The event hub: one poll of the database delivers jobs' events to any number of subscribers.

A subscriber holds no connection to the database while it waits. It reads the existing events by itself. After that
it receives the batches of the hub, which polls in one task of this process.
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

POLL_SECONDS = 0.5
BATCH = 1000  # events of one poll
BACKLOG = 2000  # batches that a client may lag behind; the hub then ends its stream, and it reconnects for the rest


@dataclass(frozen=True)
class EventBatch:
    """``ended`` is the job's final state, with its last events. ``lagged``: too slow a subscriber's stream ends."""

    events: tuple[JobEvent, ...] = ()
    ended: JobStatus | None = None
    lagged: bool = False


@dataclass
class JobSubscriptions:
    """The subscribers of one job, whose log was read up to ``sequence``."""

    sequence: int
    subscribers: set[asyncio.Queue[EventBatch]] = field(default_factory=set)


class EventHub:
    """Belongs to one event loop. ``close`` ends every subscription."""

    def __init__(self, sessions: Sessions, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._sessions = sessions
        self._poll_seconds = poll_seconds
        self._jobs: dict[str, JobSubscriptions] = {}
        self._task: asyncio.Task[None] | None = None

    async def subscribe(self, job_id: str, sequence: int) -> AsyncIterator[EventBatch]:
        """All after ``sequence``, oldest first, until the job has ended or the subscriber lags too far behind."""
        queue: asyncio.Queue[EventBatch] = asyncio.Queue(BACKLOG)
        while True:
            found_of = await run_in_threadpool(self._read, {job_id: sequence})
            found, ended = found_of[job_id]
            if found:
                sequence = found[-1].sequence
            if found or ended is not None:
                yield EventBatch(tuple(found), ended if len(found) < BATCH else None)
            if ended is not None and len(found) < BATCH:
                return
            if len(found) < BATCH and sequence >= self._join(job_id, sequence, queue):
                break  # from here on the hub delivers
        try:
            while True:
                latest = await queue.get()
                fresh = tuple(event for event in latest.events if event.sequence > sequence)
                if fresh:
                    sequence = fresh[-1].sequence
                yield EventBatch(fresh, latest.ended, latest.lagged)
                if latest.ended is not None or latest.lagged:
                    return
        finally:
            self._leave(job_id, queue)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for job in self._jobs.values():
            for queue in job.subscribers:
                _deliver(queue, EventBatch(lagged=True))

    def _join(self, job_id: str, sequence: int, queue: asyncio.Queue[EventBatch]) -> int:
        """How far the hub has read this job; the subscriber joins only if it has read that far."""
        job = self._jobs.setdefault(job_id, JobSubscriptions(sequence))
        if sequence >= job.sequence:
            job.subscribers.add(queue)
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._poll())
        return job.sequence

    def _leave(self, job_id: str, queue: asyncio.Queue[EventBatch]) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            job.subscribers.discard(queue)
            if not job.subscribers:
                del self._jobs[job_id]

    async def _poll(self) -> None:
        while self._jobs:
            await asyncio.sleep(self._poll_seconds)
            try:
                found = await run_in_threadpool(
                    self._read, {job_id: job.sequence for job_id, job in self._jobs.items()}
                )
            except (OperationalError, PoolTimeout) as error:
                log.warning("events.not_read", reason=str(error))
                continue
            for job_id, (fresh, ended) in found.items():
                job = self._jobs.get(job_id)
                if job is None or not (fresh or ended):
                    continue
                if fresh:  # the subscribers may have joined during the poll, and have read further by themselves
                    job.sequence = max(job.sequence, fresh[-1].sequence)
                for queue in list(job.subscribers):
                    _deliver(queue, EventBatch(tuple(fresh), ended))

    def _read(self, seen: dict[str, int]) -> dict[str, tuple[list[JobEvent], JobStatus | None]]:
        """Each job's new events, and its final state if these are the last. The state is read first: an event after
        the end would come late, but none before it would be lost."""
        with self._sessions() as session:
            states = jobs.statuses(session, seen)
            fresh = events.after_each(session, seen, limit=BATCH)
        whole = len(fresh) < BATCH
        of: dict[str, list[JobEvent]] = {job_id: [] for job_id in seen}
        for event in fresh:
            of[event.job_id].append(event)
        return {
            job_id: (found, state if whole and (state := states.get(job_id)) in TERMINAL else None)
            for job_id, found in of.items()
        }


def _deliver(queue: asyncio.Queue[EventBatch], batch: EventBatch) -> None:
    try:
        queue.put_nowait(batch)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(EventBatch(lagged=True))
