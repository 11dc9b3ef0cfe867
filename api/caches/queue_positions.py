"""A cache of the queued jobs' positions: a single position requires sorting the whole queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from sqlalchemy import Engine

from store.database import read
from store.jobs import queue
from store.jobs.queue import QueuePosition

CACHE_SECONDS = 1.0
REST = 20  # a query of N seconds is repeated after 20 N seconds at the earliest: it takes 5% of the time at most


class QueuePositions:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: dict[str, QueuePosition] = {}
        self._until = 0.0

    def of(self, reader: Engine, job_ids: Collection[str]) -> dict[str, QueuePosition]:
        """Positions of those that are queued, from the cache; a job that the cache lacks causes a new query."""
        if not job_ids:
            return {}
        with self._lock:  # concurrent callers wait for the same query
            if time.monotonic() > self._until or not self._positions.keys() >= set(job_ids):
                began = time.monotonic()
                self._positions = read(reader, queue.all_positions)
                ended = time.monotonic()
                self._until = ended + max(CACHE_SECONDS, REST * (ended - began))
            return {job_id: self._positions[job_id] for job_id in job_ids if job_id in self._positions}
