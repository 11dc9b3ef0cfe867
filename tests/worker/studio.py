"""Somebody who draws whatever is queued, as a drawing worker does, in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from store import leases
from store.turns import GENERATIONS
from worker.generation.generation import generate
from worker.resources import Resources

LOOK_SECONDS = 0.1


@contextmanager
def studio(resources: Resources) -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(LOOK_SECONDS):
            with resources.sessions() as session:
                queued = leases.unpublished(session, GENERATIONS, older_than_seconds=0)
            for generation_id in queued:
                generate(resources, generation_id, stopping=stop.is_set)

    thread = threading.Thread(target=work, name="studio")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
