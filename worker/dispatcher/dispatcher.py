"""``python -m worker.dispatcher``: the loop that no lost message and no dead worker can stop.

Every tick takes back expired leases, fails files that repeatedly kill their reader, publishes again the head of what is
queued and not claimed, and removes uploads that were not completed in time. Any number of dispatchers may run; an
advisory lock lets one tick at a time. Each also runs a thread that sends webhooks, and one for housekeeping, of which
one acts.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import leases
from store.database import open_engine, open_sessions
from store.files import file_leases
from store.generations import generation_leases
from store.gpu_classes import queue_of
from store.hints import QUEUES, Hints
from store.jobs import job_leases, jobs
from store.logs import configure_logs
from store.ops import counters
from store.settings import Settings
from store.tenants import idempotency
from store.turns import FILES, GENERATIONS, JOBS
from store.webhooks import delivery_log
from worker.dispatcher import housekeeping, upload_expiry
from worker.resources import Resources, resources
from worker.webhooks import sending

log = structlog.get_logger()

LOCK = 7_246_002  # any constant of ours, other than the migrations'


@dataclass(frozen=True)
class Due:
    """Rows whose hints are to be sent, once the transaction that found them is committed."""

    jobs: list[str]
    files: list[str]
    generations: list[str] = field(default_factory=list)
    memory_needs: dict[str, int | None] = field(default_factory=dict, compare=False)  # of the jobs, in GiB


def tick(parts: Resources) -> Due:
    with parts.sessions.begin() as session:
        if not session.scalar(select(text(f"pg_try_advisory_xact_lock({LOCK})"))):
            return Due([], [])
        due = _collect(session, parts.settings)
    _publish(parts.hints, due)
    upload_expiry.clear(parts)
    return due


def _publish(hints: Hints, due: Due) -> None:
    """Up to the first that is not sent: each try of a broker that is down takes seconds, and leases expire."""
    sent = _send(hints, QUEUES["worker.tasks.draw"], due.generations, hints.generate)
    for queue, job_ids in _by_queue(due).items():
        sent = sent and _send(hints, queue, job_ids, lambda job_id: hints.train(job_id, due.memory_needs[job_id]))
    if sent:
        _send(hints, QUEUES["worker.tasks.read_file"], due.files, hints.read_file)


def _by_queue(due: Due) -> dict[str, list[str]]:
    queues: dict[str, list[str]] = {}
    for job_id in due.jobs:
        queues.setdefault(queue_of(due.memory_needs[job_id]), []).append(job_id)
    return queues


def _send(hints: Hints, queue: str, rows: list[str], send: Callable[[str], bool]) -> bool:
    """Whether the broker answered. While as many hints wait as rows do, all workers are busy or away: more hints
    would make none of them come sooner, and would pile up for as long as it lasts."""
    if not rows:
        return True
    waiting = hints.waiting(queue)
    if waiting is None:
        return False
    return waiting >= len(rows) or all(send(row) for row in rows)


def _collect(session: Session, settings: Settings) -> Due:
    counters.record_heartbeat(session, "dispatcher")
    job_leases.expire(session, crash_cap=settings.crash_cap)
    generation_leases.expire(session, crash_cap=settings.crash_cap)
    idempotency.delete_expired(session)
    delivery_log.delete_expired(session)
    for file_id in file_leases.expire(session, crash_cap=settings.crash_cap):
        jobs.files_ready(session, file_id)
    # Of each memory need: its hints go to other workers, which may be free while all of the others are busy.
    job_ids = leases.unpublished(
        session, JOBS, older_than_seconds=settings.republish_seconds, apart=JOBS.table.memory_gib
    )
    due = Due(
        jobs=job_ids,
        memory_needs=jobs.memory_needs(session, job_ids),
        files=leases.unpublished(session, FILES, older_than_seconds=settings.republish_seconds),
        generations=leases.unpublished(session, GENERATIONS, older_than_seconds=settings.republish_seconds),
    )
    leases.mark_published(session, JOBS, due.jobs)
    leases.mark_published(session, FILES, due.files)
    leases.mark_published(session, GENERATIONS, due.generations)
    return due


def main() -> None:
    configure_logs()
    parts = resources()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("dispatcher.started")
    # With database connections of their own, for which the tick never has to wait.
    settings = parts.settings
    engine = open_engine(settings.required_database_url, pool_size=4, idle_seconds=settings.lease_seconds / 2)
    background = replace(parts, sessions=open_sessions(engine))
    sender = threading.Thread(target=sending.run, args=(background, stop))
    # A daemon: a round may take long, and may be broken off anywhere.
    tidier = threading.Thread(target=housekeeping.run, args=(background, stop), daemon=True)
    sender.start()
    tidier.start()
    try:
        tick_until(stop, parts)
    finally:
        stop.set()
        sender.join()


def tick_until(stop: threading.Event, parts: Resources) -> None:
    while not stop.is_set():
        try:
            due = tick(parts)
            if due != Due([], []):
                log.info("dispatcher.due", jobs=due.jobs, files=due.files, generations=due.generations)
        except OperationalError as error:
            log.warning("dispatcher.database_unreachable", reason=str(error.orig))
        stop.wait(parts.settings.dispatch_seconds)
