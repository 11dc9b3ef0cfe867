"""Where a page of a list begins: after a row that the client has seen, and that must be one of the list's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from store.errors import CursorUnknown


def position(session: Session, known: Select[Any], after: str) -> Any:
    """What ``known`` finds of the row ``after``: its place in the order. Raises CursorUnknown where it finds none.

    Rows that were deleted since are found where they are kept, so that a client may delete while it reads on.
    """
    found = session.scalar(known)
    if found is None:
        raise CursorUnknown(after)
    return found
