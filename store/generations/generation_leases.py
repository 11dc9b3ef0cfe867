"""What a worker may do to the generation that it leases: claim, renew, end. Nothing here commits.

As with every lease (store/leases.py), the attempt of a claim is the fencing token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from store import leases, turns
from store.ops.counters import count
from store.tables.base import Json
from store.tables.generation import CANCELLED, Generation, GenerationStatus
from store.tenants.limits import UNLIMITED, ProjectLimits
from store.turns import GENERATIONS


@dataclass(frozen=True)
class GenerationLease:
    """The right to generate the images, until the lease expires, and what they are made of."""

    generation_id: str
    attempt: int
    spec: Json
    weights: Mapping[str, str]


def claim(session: Session, generation_id: str, *, worker: str, lease_seconds: float) -> GenerationLease | None:
    """None when it is not queued (any more), so a repeated message does nothing."""
    row = leases.claim(
        session,
        GENERATIONS,
        generation_id,
        Generation.project_id,
        Generation.attempt,
        Generation.spec,
        Generation.weights,
        lease_seconds=lease_seconds,
        status=GenerationStatus.RUNNING,
        worker=worker,
    )
    if row is None:
        return None
    turns.mark_served(session, turns.GENERATION_TURNS, row.project_id)
    return GenerationLease(generation_id, row.attempt, row.spec, row.weights)


def claim_next(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    limits: ProjectLimits = UNLIMITED,
    readable: Callable[[str, Json], bool] | None = None,
) -> GenerationLease | None:
    """Claim the generation whose turn it is (store/turns.py); None if there is none for this worker.

    One that is not ``readable`` to the worker is left to others. ``limits`` are the deployment's.
    """

    def suits(generation_id: str) -> bool:
        spec = select(Generation.spec).where(Generation.id == generation_id)
        return readable is None or readable(generation_id, session.scalars(spec).one())

    turn = turns.next_id(session, turns.GENERATION_TURNS, limits.running_images, suits=suits)
    if turn is None or not turns.may_run(session, turns.GENERATION_TURNS, turn, limits.running_images):
        return None
    return claim(session, turn, worker=worker, lease_seconds=lease_seconds)


def renew(session: Session, lease: GenerationLease, *, lease_seconds: float) -> bool:
    """Whether its owner cancels it: its worker then ends it by ``cancel``."""
    columns = (Generation.cancel_requested,)
    row = leases.renew(session, GENERATIONS, lease.generation_id, lease.attempt, *columns, lease_seconds=lease_seconds)
    cancelled: bool = row.cancel_requested
    return cancelled


def succeed(session: Session, lease: GenerationLease, *, result: Json) -> None:
    """The one fenced commit that makes the images visible, once all of their blobs are stored."""
    size = sum(image["bytes"] for image in result["images"])
    _end(session, lease, status=GenerationStatus.SUCCEEDED, result=result, bytes=size)


def fail(session: Session, lease: GenerationLease, *, code: str, message: str, param: str | None = None) -> None:
    """For a reason that trying again cannot mend; ``param`` is the request's field that is the cause."""
    error = {"code": code, "message": message, "param": param}
    _end(session, lease, status=GenerationStatus.FAILED, error=error)


def give_back(session: Session, lease: GenerationLease) -> None:
    """Queued again: the worker stops. What its owner cancelled meanwhile ends."""
    if _write(session, lease, worker=Generation.worker).cancel_requested:
        cancel(session, lease)
    else:
        _requeue(session, lease)


def cancel(session: Session, lease: GenerationLease) -> None:
    """Its owner wants none of it any more."""
    fail(session, lease, code=CANCELLED, message="It was cancelled.")


def crash(session: Session, lease: GenerationLease, *, code: str, message: str, crash_cap: int) -> GenerationStatus:
    """The program or its worker died: queue it again, or fail it when that happened ``crash_cap`` times."""
    row = _write(session, lease, crashes=Generation.crashes + 1)
    crashes = row.crashes
    count(session, "crashes", "draw")
    if row.cancel_requested:
        cancel(session, lease)
        return GenerationStatus.FAILED
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
    """Returns how often the generation has crashed, and whether its owner has cancelled it."""
    columns = (Generation.crashes, Generation.cancel_requested)
    return leases.write(session, GENERATIONS, lease.generation_id, lease.attempt, *columns, **changes)
