"""Idempotency keys: what a create was answered, kept in the transaction that made it. Nothing here commits.

A request and its answer are committed together or not at all, so a key never stands for a create that failed, and a
create that succeeded is never without its key.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store.errors import IdempotencyInFlight, IdempotencyMismatch
from store.tables.base import Json
from store.tables.idempotency import IdempotencyKey

KEPT = timedelta(hours=24)


def earlier(session: Session, key_id: str, key: str, *, request: str) -> Json | None:
    """What the request was answered before, or None: then this transaction may do it, and nobody else until its end.

    ``request`` identifies the operation and its body. Raises IdempotencyInFlight while another transaction does it,
    IdempotencyMismatch where the key was used for another request.
    """
    mine = func.pg_try_advisory_xact_lock(func.hashtextextended(f"idempotency {key_id} {key}", 0))
    if not session.scalar(select(mine)):
        raise IdempotencyInFlight(key)
    found = session.get(IdempotencyKey, (key_id, key))
    if found is None:
        return None
    if found.request != request:
        raise IdempotencyMismatch(key)
    return found.answer


def keep(session: Session, key_id: str, key: str, *, request: str, answer: Json) -> None:
    session.add(IdempotencyKey(key_id=key_id, key=key, request=request, answer=answer))


def forget(session: Session) -> None:
    """Drop what is older than KEPT: no client retries so late."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - KEPT))
