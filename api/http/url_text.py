"""Reject a URL with a NUL character before a query uses it: PostgreSQL's text holds none."""

from __future__ import annotations

from fastapi import Request

from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError


async def refuse_nul(request: Request) -> None:
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidRequest([FieldError(None, "The URL contains a NUL character; remove it.", "invalid_url")])
