"""Idempotency keys: the answer to a create, stored in the transaction of the create. Nothing here commits.

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

RETENTION = timedelta(hours=24)


def find_answer(session: Session, key_id: str, key: str, *, request: str) -> Json | None:
    """The stored answer to the request; None if there is none: then this transaction alone may do it, until its end.

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


def stored_answer(session: Session, key_id: str, key: str) -> Json | None:
    """The stored answer to whatever request the key was first used for, before the body of this one is known."""
    found = session.get(IdempotencyKey, (key_id, key))
    return found.answer if found is not None else None


def save(session: Session, key_id: str, key: str, *, request: str, answer: Json) -> None:
    session.add(IdempotencyKey(key_id=key_id, key=key, request=request, answer=answer))


def delete_expired(session: Session) -> None:
    """Drop what is older than RETENTION: no client retries so late."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - RETENTION))
