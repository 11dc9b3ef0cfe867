"""A request's JSON body: the bytes as they came, and what they say."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request
from pydantic_core import from_json

from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError


@dataclass(frozen=True)
class JsonBody:
    document: dict[str, object]
    sha256: str

    @classmethod
    def parse(cls, content: bytes) -> Self:
        try:
            document = from_json(content, allow_inf_nan=False)
        except ValueError as error:
            raise InvalidRequest([FieldError(None, f"The body is not JSON: {error}.", "invalid_json")]) from error
        if not isinstance(document, dict):
            raise InvalidRequest([FieldError(None, "The body must be a JSON object.", "invalid_json")])
        if _holds_nul(document):
            raise InvalidRequest([FieldError(None, "The body contains a NUL character; remove it.", "invalid_json")])
        return cls(document, hashlib.sha256(content).hexdigest())


async def _read(request: Request) -> JsonBody:
    return JsonBody.parse(await request.body())


ParsedBody = Annotated[JsonBody, Depends(_read)]


def _holds_nul(value: object) -> bool:
    """PostgreSQL's text has no NUL. The parser has bounded the depth."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)
