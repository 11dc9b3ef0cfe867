"""Leases: one worker at a time owns a row, until its lease expires. Nothing here commits.

A claim is one UPDATE; the attempt that it returns is the fencing token. Every later write names it, and a write that
finds no row raises LeaseLost: the worker ends its work and stops. The database's clock alone sets and judges expiry.

Jobs, files and generations say by a ``Leases`` what their states mean for a lease, and keep their own rules.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Row, func, select, union_all, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import LeaseLost
from store.ops.counters import Queue, count
from store.tables.lease import Leased

HEAD = 100  # rows of a queue that have a hint at least: more than the workers of one deployment
# Why a worker lost its lease, for the messages of jobs and generations that fail for it.
LOST = "The worker, its machine or its connection to the database is at fault: have the operator check them."

Leasable = TypeVar("Leasable", bound=Leased)


@dataclass(frozen=True, eq=False)
class Leases(Generic[Leasable]):
    """How the rows of one table are leased.

    ``waiting``: a worker may claim the row. ``owned``: the row is still in the state that its claim put it into.
    ``live``: a worker may be working on it, and its lease can expire. ``queue`` is the name that counters use.
    """

    table: type[Leasable]
    queue: Queue
    waiting: ColumnElement[bool]
    owned: ColumnElement[bool]
    live: ColumnElement[bool]


def claim(
    session: Session, leases: Leases[Leasable], row_id: str, /, *returning: Any, lease_seconds: float, **changes: Any
) -> Row[Any] | None:
    """Start the next attempt at the row; None if the row is not waiting, so that a repeated claim does nothing."""
    table = leases.table
    taken = taken_for(table.attempt, table.lease_expires_at, lease_seconds)
    query = update(table).where(table.id == row_id, leases.waiting).values(taken).values(**changes)
    row = session.execute(query.returning(*returning)).one_or_none()
    if row is not None:
        count(session, "claims", leases.queue)
    return row


def renew(
    session: Session, leases: Leases[Leasable], row_id: str, attempt: int, *returning: Any, lease_seconds: float
) -> Row[Any]:
    """Extend the lease to ``lease_seconds`` from now. Raises LeaseLost."""
    row = write(session, leases, row_id, attempt, *returning, lease_expires_at=expiry(lease_seconds))
    count(session, "renewals", leases.queue)
    return row


def write(
    session: Session, leases: Leases[Leasable], row_id: str, attempt: int, /, *returning: Any, **changes: Any
) -> Row[Any]:
    """One fenced UPDATE; returns the columns ``returning``, or the id without any. Raises LeaseLost."""
    query = update(leases.table).where(_fence(leases, row_id, attempt)).values(**changes)
    row = session.execute(query.returning(*(returning or (leases.table.id,)))).one_or_none()
    if row is None:
        raise LeaseLost(row_id, attempt)
    return row


def lock(session: Session, leases: Leases[Leasable], row_id: str, attempt: int, *columns: Any) -> Row[Any]:
    """These columns of the row, which nobody else changes until this transaction ends. Raises LeaseLost."""
    query = select(*columns).where(_fence(leases, row_id, attempt)).with_for_update()
    row = session.execute(query).one_or_none()
    if row is None:
        raise LeaseLost(row_id, attempt)
    return row


def expired(session: Session, leases: Leases[Leasable], *columns: Any) -> list[Row[Any]]:
    """These columns of the rows whose lease has expired, locked; a row that another transaction holds is left out."""
    late = leases.table.lease_expires_at < func.clock_timestamp()
    return list(session.execute(select(*columns).where(leases.live, late).with_for_update(skip_locked=True)))


def unpublished(
    session: Session,
    leases: Leases[Leasable],
    *,
    older_than_seconds: float,
    apart: InstrumentedAttribute[Any] | None = None,
) -> list[str]:
    """Ids of rows at the head of the queue without a hint, or whose latest hint is older than that and found no worker.

    The head is the first HEAD waiting rows, of each value of ``apart``: those whose hints go to other workers. The rows
    behind them get their turn when these are taken.
    """
    table = leases.table
    published_before = func.clock_timestamp() - timedelta(seconds=older_than_seconds)
    due = table.published_at.is_(None) | (table.published_at < published_before)
    place = func.row_number().over(partition_by=apart, order_by=table.id)
    waiting = select(table.id, due.label("due"), place.label("place")).where(leases.waiting).subquery()
    head = select(waiting.c.id).where(waiting.c.place <= HEAD, waiting.c.due).order_by(waiting.c.id)
    return list(session.scalars(head))


def mark_published(session: Session, leases: Leases[Leasable], row_ids: Collection[str]) -> None:
    table = leases.table
    session.execute(update(table).where(table.id.in_(row_ids)).values(published_at=func.clock_timestamp()))


def live_attempts(session: Session, *tables: Leases[Any]) -> set[tuple[str, int]]:
    """Ids of the rows that a worker may be working on, with the attempt that owns them."""
    live = [select(leases.table.id, leases.table.attempt).where(leases.live) for leases in tables]
    return {(row.id, row.attempt) for row in session.execute(union_all(*live))}


def taken_for(
    attempts: InstrumentedAttribute[int], expires_at: InstrumentedAttribute[Any], lease_seconds: float
) -> dict[Any, ColumnElement[Any]]:
    """What a claim writes: one attempt more, and the time at which its owner is taken to be dead."""
    return {attempts: attempts + 1, expires_at: expiry(lease_seconds)}


def expiry(lease_seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=lease_seconds)


def _fence(leases: Leases[Leasable], row_id: str, attempt: int) -> ColumnElement[bool]:
    table = leases.table
    return (table.id == row_id) & (table.attempt == attempt) & leases.owned
