"""What a worker may do to the images that it draws: claim, renew, finish. Nothing here commits.

As of jobs (see leases): a claim is one UPDATE, the attempt that it returns is the fencing token, and a write that
finds no row raises LeaseLost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from store.errors import LeaseLost
from store.jobs.job_leases import LOST
from store.ops.counters import count
from store.tables.base import Json
from store.tables.generation import Generation, GenerationStatus


@dataclass(frozen=True)
class GenerationClaim:
    """The right to draw, until the lease expires, and what is to be drawn."""

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
) -> GenerationClaim | None:
    """None when it is not queued (any more), so a repeated message does nothing, or not ``readable`` to the worker,
    so that it is left to others."""
    spec = session.scalar(select(Generation.spec).where(Generation.id == generation_id))
    if spec is None or (readable is not None and not readable(generation_id, spec)):
        return None
    row = session.execute(
        update(Generation)
        .where(Generation.id == generation_id, Generation.status == GenerationStatus.QUEUED)
        .values(
            status=GenerationStatus.RUNNING,
            attempt=Generation.attempt + 1,
            worker=worker,
            lease_expires_at=_expiry(lease_seconds),
        )
        .returning(Generation.attempt, Generation.spec, Generation.weights)
    ).one_or_none()
    if row is None:
        return None
    count(session, "claims", "draw")
    return GenerationClaim(generation_id, row.attempt, row.spec, row.weights)


def renew(session: Session, owned: GenerationClaim, *, lease_seconds: float) -> None:
    _write(session, owned, lease_expires_at=_expiry(lease_seconds))
    count(session, "renewals", "draw")


def succeed(session: Session, owned: GenerationClaim, *, result: Json) -> None:
    """The one fenced commit that makes the images visible, once all of their blobs are stored."""
    _end(session, owned, status=GenerationStatus.SUCCEEDED, result=result)


def fail(session: Session, owned: GenerationClaim, *, code: str, message: str, param: str | None = None) -> None:
    """For a reason that trying again cannot mend; ``param`` is the request's field that is at fault."""
    error = {"code": code, "message": message, "param": param}
    _end(session, owned, status=GenerationStatus.FAILED, error=error)


def give_back(session: Session, owned: GenerationClaim) -> None:
    """Queued again: the worker stops."""
    _requeue(session, owned)


def crash(session: Session, owned: GenerationClaim, *, code: str, message: str, crash_cap: int) -> GenerationStatus:
    """The program or its worker died: queue it again, or fail it when that happened ``crash_cap`` times."""
    crashes = _write(session, owned, crashes=Generation.crashes + 1)
    count(session, "crashes", "draw")
    if crashes >= crash_cap:
        fail(session, owned, code=code, message=f"Gave up after {crashes} crashes. {message}")
        return GenerationStatus.FAILED
    _requeue(session, owned)
    return GenerationStatus.QUEUED


def expire(session: Session, *, crash_cap: int) -> list[str]:
    """Take back what a lease ran out on; returns the ids of those queued again."""
    expired = session.execute(
        select(Generation.id, Generation.attempt, Generation.worker)
        .where(Generation.status == GenerationStatus.RUNNING, Generation.lease_expires_at < func.clock_timestamp())
        .with_for_update(skip_locked=True)
    ).all()
    queued = []
    for row in expired:
        owned = GenerationClaim(row.id, row.attempt, {}, {})
        message = f"Worker {row.worker} stopped renewing its lease on attempt {row.attempt}. {LOST}"
        after = crash(session, owned, code="worker_lost", message=message, crash_cap=crash_cap)
        if after is GenerationStatus.QUEUED:
            queued.append(row.id)
    return queued


def live_attempts(session: Session) -> set[tuple[str, int]]:
    """Ids that a worker may be working on, with the attempt that owns them."""
    query = select(Generation.id, Generation.attempt).where(Generation.status == GenerationStatus.RUNNING)
    return {(row.id, row.attempt) for row in session.execute(query)}


def _requeue(session: Session, owned: GenerationClaim) -> None:
    _write(session, owned, status=GenerationStatus.QUEUED, lease_expires_at=None, published_at=None)
    count(session, "requeues", "draw")


def _end(session: Session, owned: GenerationClaim, **changes: Any) -> None:
    _write(session, owned, lease_expires_at=None, finished_at=func.clock_timestamp(), **changes)


def _write(session: Session, owned: GenerationClaim, **changes: Any) -> int:
    """One fenced UPDATE; returns how often it has crashed."""
    fence = (
        (Generation.id == owned.generation_id)
        & (Generation.attempt == owned.attempt)
        & (Generation.status == GenerationStatus.RUNNING)
    )
    row = session.execute(update(Generation).where(fence).values(**changes).returning(Generation.crashes)).one_or_none()
    if row is None:
        raise LeaseLost(owned.generation_id, owned.attempt)
    return int(row.crashes)


def _expiry(lease_seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=lease_seconds)
