"""Lists in OpenAI's shape, by cursor: ``after`` is the last id that the client has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel
from pydantic.config import JsonDict, JsonValue

Row = TypeVar("Row")
Item = TypeVar("Item")
After = Annotated[str | None, Query(description="Id of the last object of the page before.")]


class Page(BaseModel, Generic[Item]):
    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool


class PageWithEnds(Page[Item], Generic[Item]):
    first_id: str | None
    last_id: str | None


def cut(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], bool]:
    """A page, and whether there is more, from a query for ``limit + 1`` rows."""
    return rows[:limit], len(rows) > limit


def page_of(item: JsonDict, *, ends: bool, **more: JsonValue) -> JsonDict:
    """A list's example: a page with this one object. ``ends``: the list has ``first_id`` and ``last_id``."""
    ids: JsonDict = {"first_id": item["id"], "last_id": item["id"]} if ends else {}
    return {"example": {"object": "list", "data": [item], "has_more": False, **ids, **more}}
