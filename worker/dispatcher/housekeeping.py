"""Housekeeping in a thread of the dispatcher, for which the tick never waits.

It drops old checkpoints and audit entries, erases rows of what was deleted, and sweeps blobs. Any number of dispatchers
may run; when the last round was begun stands in the database, and one of them takes the next.
"""

from __future__ import annotations

import threading

import structlog
from obstore.exceptions import BaseError
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from store import erasure
from store.errors import BlobMissing
from store.jobs import retention
from store.ops import counters
from store.tenants import audit
from worker.dispatcher import blob_sweep
from worker.resources import Resources

log = structlog.get_logger()

LOCK = 7_246_004  # any constant of ours, other than those of the dispatcher, of blobs and the migrations'
POLL_SECONDS = 60.0


def run(parts: Resources, stop: threading.Event) -> None:
    while not stop.wait(min(POLL_SECONDS, parts.settings.sweep_seconds)):
        try:
            tidy(parts)
        except (OperationalError, BaseError, OSError, BlobMissing) as error:
            log.warning("housekeeping.broke_off", reason=str(error))


def tidy(parts: Resources) -> bool:
    """Whether a round was due and this one made it. One that breaks off is due again at the next poll; after one whose
    dispatcher was killed, when the time for another has passed."""
    if not _is_ours(parts):
        return False
    swept = None
    try:
        with parts.sessions.begin() as session:
            days, failed_days = parts.settings.checkpoint_days, parts.settings.failed_checkpoint_days
            dropped = retention.drop_checkpoints(session, days=days, failed_days=failed_days)
            audit.delete_expired(session, days=parts.settings.audit_days)
        erased = _erase_deleted(parts)
        swept = blob_sweep.sweep(parts)
    finally:
        if swept is None:
            with parts.sessions.begin() as session:
                counters.delete_heartbeat(session, "housekeeping")
    log.info("housekeeping.done", checkpoints=dropped, rows=erased, blobs=swept.blobs, bytes=swept.bytes)
    return True


def _erase_deleted(parts: Resources) -> int:
    """In many short transactions: the rows of a large dataset take long."""
    erased = 0
    for step in erasure.STEPS:
        while True:
            with parts.sessions.begin() as session:
                done = step(session, parts.settings.deleted_days)
            erased += done
            if not done:
                break
    return erased


def _is_ours(parts: Resources) -> bool:
    """Takes the turn: no transaction stays open for it, as a round may last for longer than one may stand still."""
    with parts.sessions.begin() as turn:
        if not turn.scalar(select(text(f"pg_try_advisory_xact_lock({LOCK})"))):
            return False
        last = counters.heartbeat_age(turn, "housekeeping")
        due = last is None or last >= parts.settings.sweep_seconds
        if due:
            counters.record_heartbeat(turn, "housekeeping")
        return due
