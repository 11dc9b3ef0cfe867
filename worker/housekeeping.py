"""Making room, now and then, in a thread of the dispatcher's own: the tick never waits for it.

Any number of dispatchers may run; the time of the last round stands in the database, and a lock lets one be at it.
"""

from __future__ import annotations

import threading

import structlog
from obstore.exceptions import BaseError
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import counters, retention
from store.errors import BlobMissing
from worker import blob_sweep
from worker.resources import Resources

log = structlog.get_logger()

LOCK = 7_246_004  # any constant of ours, other than those of the dispatcher, of blobs and the migrations'
LOOK_SECONDS = 60.0


def run(parts: Resources, stop: threading.Event) -> None:
    while not stop.wait(min(LOOK_SECONDS, parts.settings.sweep_seconds)):
        try:
            tidy(parts)
        except (OperationalError, BaseError, OSError, BlobMissing) as error:
            log.warning("housekeeping.broke_off", reason=str(error))


def tidy(parts: Resources) -> bool:
    """Whether a round was due and this one made it. One that breaks off is due again at the next look."""
    with parts.sessions.begin() as turn:  # holds the lock while the work is done in transactions of its own
        if not _is_ours(turn, parts.settings.sweep_seconds):
            return False
        with parts.sessions.begin() as session:
            dropped = retention.drop_checkpoints(session, days=parts.settings.checkpoint_days)
        swept = blob_sweep.sweep(parts)
        counters.beat(turn, "housekeeping")
    log.info("housekeeping.done", checkpoints=dropped, blobs=swept.blobs, bytes=swept.bytes)
    return True


def _is_ours(turn: Session, every_seconds: float) -> bool:
    if not turn.scalar(select(text(f"pg_try_advisory_xact_lock({LOCK})"))):
        return False
    last = counters.last_beat_age(turn, "housekeeping")
    return last is None or last >= every_seconds
