"""Where the queued jobs stand, remembered for a moment: to know one place all that is queued has to be sorted."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from sqlalchemy import Engine

from store.database import read
from store.jobs import queue
from store.jobs.queue import QueuePosition

KNOWN_SECONDS = 1.0
REST = 20  # a longer queue is looked at less often: looking takes one part in so many of the time at most


class Places:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, QueuePosition] = {}
        self._until = 0.0

    def of(self, reader: Engine, job_ids: Collection[str]) -> dict[str, QueuePosition]:
        """Of those that are queued, as the queue stood a moment ago; one that came since is looked for now."""
        if not job_ids:
            return {}
        with self._lock:  # who asks meanwhile waits for the same answer
            if time.monotonic() > self._until or not self._places.keys() >= set(job_ids):
                began = time.monotonic()
                self._places = read(reader, queue.all_positions)
                ended = time.monotonic()
                self._until = ended + max(KNOWN_SECONDS, REST * (ended - began))
            return {job_id: self._places[job_id] for job_id in job_ids if job_id in self._places}
