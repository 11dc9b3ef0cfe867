"""Cursor pagination: a page begins after a row that the client has seen, which must be one of the list's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from store.errors import CursorUnknown


def position(session: Session, row: Select[Any], after: str) -> Any:
    """The sort key of the row ``after``, which the query ``row`` selects. Raises CursorUnknown if it finds none.

    A row that was deleted since is still found if its table keeps it: a client may delete while it pages.
    """
    found = session.scalar(row)
    if found is None:
        raise CursorUnknown(after)
    return found
