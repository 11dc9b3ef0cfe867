"""What a worker may do to the generation that it leases: claim, renew, end. Nothing here commits.

As with every lease (store/leases.py), the attempt of a claim is the fencing token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from store import leases
from store.leases import Leases
from store.ops.counters import count
from store.tables.base import Json
from store.tables.generation import Generation, GenerationStatus

_RUNNING = Generation.status == GenerationStatus.RUNNING
GENERATIONS = Leases(
    Generation, "draw", waiting=Generation.status == GenerationStatus.QUEUED, owned=_RUNNING, live=_RUNNING
)


@dataclass(frozen=True)
class GenerationLease:
    """The right to generate the images, until the lease expires, and what they are made of."""

    generation_id: str
    attempt: int
    spec: Json
    weights: Mapping[str, str]


def claim(
    session: Session,
    generation_id: str,
    *,
    worker: str,
    lease_seconds: float,
    readable: Callable[[str, Json], bool] | None = None,
) -> GenerationLease | None:
    """None when it is not queued (any more), so a repeated message does nothing, or not ``readable`` to the worker,
    so that it is left to others."""
    spec = session.scalar(select(Generation.spec).where(Generation.id == generation_id))
    if spec is None or (readable is not None and not readable(generation_id, spec)):
        return None
    row = leases.claim(
        session,
        GENERATIONS,
        generation_id,
        Generation.attempt,
        Generation.spec,
        Generation.weights,
        lease_seconds=lease_seconds,
        status=GenerationStatus.RUNNING,
        worker=worker,
    )
    return GenerationLease(generation_id, row.attempt, row.spec, row.weights) if row is not None else None


def renew(session: Session, lease: GenerationLease, *, lease_seconds: float) -> None:
    leases.renew(session, GENERATIONS, lease.generation_id, lease.attempt, lease_seconds=lease_seconds)


def succeed(session: Session, lease: GenerationLease, *, result: Json) -> None:
    """The one fenced commit that makes the images visible, once all of their blobs are stored."""
    _end(session, lease, status=GenerationStatus.SUCCEEDED, result=result)


def fail(session: Session, lease: GenerationLease, *, code: str, message: str, param: str | None = None) -> None:
    """For a reason that trying again cannot mend; ``param`` is the request's field that is the cause."""
    error = {"code": code, "message": message, "param": param}
    _end(session, lease, status=GenerationStatus.FAILED, error=error)


def give_back(session: Session, lease: GenerationLease) -> None:
    """Queued again: the worker stops."""
    _requeue(session, lease)


def crash(session: Session, lease: GenerationLease, *, code: str, message: str, crash_cap: int) -> GenerationStatus:
    """The program or its worker died: queue it again, or fail it when that happened ``crash_cap`` times."""
    crashes = _write(session, lease, crashes=Generation.crashes + 1).crashes
    count(session, "crashes", "draw")
    if crashes >= crash_cap:
        fail(session, lease, code=code, message=f"Gave up after {crashes} crashes. {message}")
        return GenerationStatus.FAILED
    _requeue(session, lease)
    return GenerationStatus.QUEUED


def expire(session: Session, *, crash_cap: int) -> list[str]:
    """Take back generations whose lease expired; returns the ids of those queued again."""
    queued = []
    for row in leases.expired(session, GENERATIONS, Generation.id, Generation.attempt, Generation.worker):
        lease = GenerationLease(row.id, row.attempt, {}, {})
        message = f"Worker {row.worker} stopped renewing its lease on attempt {row.attempt}. {leases.LOST}"
        after = crash(session, lease, code="worker_lost", message=message, crash_cap=crash_cap)
        if after is GenerationStatus.QUEUED:
            queued.append(row.id)
    return queued


def _requeue(session: Session, lease: GenerationLease) -> None:
    _write(session, lease, status=GenerationStatus.QUEUED, lease_expires_at=None, published_at=None)
    count(session, "requeues", "draw")


def _end(session: Session, lease: GenerationLease, **changes: Any) -> None:
    _write(session, lease, lease_expires_at=None, finished_at=func.clock_timestamp(), **changes)


def _write(session: Session, lease: GenerationLease, **changes: Any) -> Row[Any]:
    """Returns how often the generation has crashed."""
    return leases.write(session, GENERATIONS, lease.generation_id, lease.attempt, Generation.crashes, **changes)
