"""PostgreSQL's text holds no NUL: a URL with one is refused before any query sees it."""

from __future__ import annotations

from fastapi import Request

from api.errors.errors import InvalidRequest
from api.errors.request_faults import Fault


async def refuse_nul(request: Request) -> None:
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidRequest([Fault(None, "The URL holds a NUL character.", "invalid_url")])
