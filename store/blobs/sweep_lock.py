"""The lock between a sweep that removes an old blob and a writer that is about to have a row name it again.

A blob that is young is safe without it: see Blobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.database import Sessions

LOCK = 7_246_003  # any constant of ours, other than the dispatcher's and the migrations'


@contextmanager
def renewing(sessions: Sessions) -> Iterator[None]:
    """Many at once; no sweep removes anything meanwhile."""
    with sessions.begin() as session:
        session.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))
        yield


def removing(session: Session) -> None:
    """Until this transaction ends nobody renews a blob."""
    session.execute(select(func.pg_advisory_xact_lock(LOCK)))
