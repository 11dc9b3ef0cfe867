"""The log of webhook deliveries, which is also their queue. Nothing here commits.

A claim is a lease (store/leases.py) on many rows at once: it counts the attempt and sets the time at which its sender
is taken to be dead. A delivery whose sender was killed is due again then: it is sent at least once, never lost.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from store import leases, pagination
from store.errors import DeliveryNotFound, WebhookDisabled
from store.tables.webhook import WebhookDelivery, WebhookEndpoint

RETENTION = timedelta(days=30)


@dataclass(frozen=True)
class DueDelivery:
    """One sending: ``attempt`` counts from 1."""

    id: str
    endpoint_id: str
    event_id: str
    body: str
    attempt: int


def claim(session: Session, *, limit: int, lease_seconds: float, busy: Collection[str] = ()) -> list[DueDelivery]:
    """What is due, the longest waiting first: at most one an endpoint, and none of the endpoints in ``busy``."""
    due = aliased(WebhookDelivery)
    first = (
        select(due.id)
        .where(due.next_attempt_at <= func.clock_timestamp(), due.endpoint_id.not_in(busy))
        .ext(distinct_on(due.endpoint_id))
        .order_by(due.endpoint_id, due.next_attempt_at, due.id)
    )
    # The time is checked twice: of two that claim at once, the later one's row may have changed under it.
    mine = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.id.in_(first), WebhookDelivery.next_attempt_at <= func.clock_timestamp())
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(mine))
        .values(leases.taken_for(WebhookDelivery.attempts, WebhookDelivery.next_attempt_at, lease_seconds))
        .returning(
            WebhookDelivery.id,
            WebhookDelivery.endpoint_id,
            WebhookDelivery.event_id,
            WebhookDelivery.body,
            WebhookDelivery.attempts,
        )
    )
    return [DueDelivery(*row) for row in session.execute(claimed)]


def delivered(session: Session, due: DueDelivery, *, status: int) -> None:
    """Record the arrival. Not fenced: a late sender's delivery has arrived, too."""
    done = update(WebhookDelivery).where(WebhookDelivery.id == due.id)
    session.execute(
        done.values(delivered_at=func.clock_timestamp(), next_attempt_at=None, last_status=status, last_error=None)
    )


def failed(session: Session, due: DueDelivery, *, status: int | None, error: str, again_in: float | None) -> None:
    """``again_in`` seconds it is sent again, never if None. An attempt that another has followed writes nothing."""
    again = None if again_in is None else func.clock_timestamp() + timedelta(seconds=again_in)
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == due.id, WebhookDelivery.attempts == due.attempt)
        .values(next_attempt_at=again, last_status=status, last_error=error)
    )


def give_up_all(session: Session, endpoint_id: str, *, error: str) -> None:
    """End what the endpoint has not been sent yet."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.next_attempt_at.is_not(None))
        .values(next_attempt_at=None, last_error=error)
    )


def retry(session: Session, endpoint: WebhookEndpoint, delivery_id: str) -> WebhookDelivery:
    """Due at once, whatever became of it; the attempts that it has had stay counted."""
    if endpoint.disabled_at is not None:
        raise WebhookDisabled(endpoint.id)
    due = update(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint.id)
    delivery: WebhookDelivery | None = session.scalar(
        due.values(next_attempt_at=func.clock_timestamp()).returning(WebhookDelivery)
    )
    if delivery is None:
        raise DeliveryNotFound(delivery_id)
    return delivery


def newest_first(session: Session, endpoint_id: str, *, after: str | None, limit: int) -> list[WebhookDelivery]:
    """Beyond the delivery ``after``. Raises CursorUnknown."""
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    query = query.order_by(WebhookDelivery.id.desc()).limit(limit)
    if after is not None:
        of_this = (WebhookDelivery.id == after, WebhookDelivery.endpoint_id == endpoint_id)
        pagination.position(session, select(WebhookDelivery.id).where(*of_this), after)
        query = query.where(WebhookDelivery.id < after)
    return list(session.scalars(query))


def delete_expired(session: Session) -> None:
    """Drop what is older than RETENTION, unless it is still to be sent."""
    old = WebhookDelivery.created_at < func.now() - RETENTION
    session.execute(delete(WebhookDelivery).where(old, WebhookDelivery.next_attempt_at.is_(None)))
