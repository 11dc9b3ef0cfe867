"""What every task of a worker process needs, opened once per process, after the fork."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache, partial

from store.blobs.blobs import Blobs
from store.blobs.sweep_lock import renewing
from store.database import Sessions, open_engine, open_sessions
from store.hints import Hints
from store.settings import Settings, settings


@dataclass(frozen=True)
class Resources:
    settings: Settings
    sessions: Sessions
    blobs: Blobs
    hints: Hints
    worker: str


@cache
def resources() -> Resources:
    chosen = settings()
    engine = open_engine(chosen.required_database_url, pool_size=2, idle_seconds=chosen.lease_seconds / 2)
    sessions = open_sessions(engine)
    return Resources(
        settings=chosen,
        sessions=sessions,
        blobs=Blobs(chosen.effective_blob_url, partial(renewing, sessions)),
        hints=Hints(chosen.required_broker_url),
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )
