"""Counters and heartbeats that several processes share. Nothing here commits.

A count is committed with what it counts, or not at all. The slot follows from the database connection, so one
transaction has one slot; within it the counters are locked in the order of Counted, which keeps two transactions that
share a slot from waiting for each other in a circle.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.signal_tables import Counter, Heartbeat

SLOTS = 16
Counted = Literal["claims", "crashes", "renewals", "requeues"]
Queue = Literal["train", "intake"]
Loop = Literal["dispatcher", "housekeeping"]


def count(session: Session, what: Counted, queue: Queue) -> None:
    slot = func.mod(func.pg_backend_pid(), SLOTS)
    row = insert(Counter).values(name=what, queue=queue, slot=slot, value=1)
    session.execute(
        row.on_conflict_do_update(index_elements=["name", "queue", "slot"], set_={"value": Counter.value + 1})
    )


def beat(session: Session, loop: Loop) -> None:
    now = func.clock_timestamp()
    row = insert(Heartbeat).values(name=loop, at=now)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": now}))


def last_beat_age(session: Session, loop: Loop) -> float | None:
    """In seconds; None if it was never round."""
    age = func.extract("epoch", func.clock_timestamp() - Heartbeat.at)
    found = session.scalar(select(age).where(Heartbeat.name == loop))
    return None if found is None else float(found)
