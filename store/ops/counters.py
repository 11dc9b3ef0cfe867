"""Counters and heartbeats that several processes share. Nothing here commits.

A count is committed with what it counts, or not at all. It goes to whichever of the counter's rows nobody has locked,
or to a new one: nobody waits for another's transaction, least of all for that of a worker that was frozen in it.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables.counter import Counter, Heartbeat

Counted = Literal["claims", "crashes", "renewals", "requeues"]
Queue = Literal["train", "intake", "draw"]
Loop = Literal["dispatcher", "housekeeping"]


def count(session: Session, what: Counted, queue: Queue) -> None:
    of = (Counter.name == what, Counter.queue == queue)
    unlocked = select(Counter.slot).where(*of).limit(1).with_for_update(skip_locked=True)
    slot = session.scalar(unlocked)
    row = insert(Counter).values(name=what, queue=queue, value=1, slot=func.pg_backend_pid() if slot is None else slot)
    session.execute(
        row.on_conflict_do_update(index_elements=["name", "queue", "slot"], set_={"value": Counter.value + 1})
    )


def record_heartbeat(session: Session, loop: Loop) -> None:
    now = func.clock_timestamp()
    row = insert(Heartbeat).values(name=loop, at=now)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": now}))


def delete_heartbeat(session: Session, loop: Loop) -> None:
    """As if it had never been round."""
    session.execute(delete(Heartbeat).where(Heartbeat.name == loop))


def heartbeat_age(session: Session, loop: Loop) -> float | None:
    """In seconds; None if it was never round."""
    age = func.extract("epoch", func.clock_timestamp() - Heartbeat.at)
    found = session.scalar(select(age).where(Heartbeat.name == loop))
    return None if found is None else float(found)
