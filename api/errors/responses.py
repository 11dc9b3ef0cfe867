"""The error responses of a route in the OpenAPI document, each with what is answered then, as the server words it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect

from api.errors.answers import body
from api.errors.errors import (
    LISTED,
    DiskFull,
    DiskSpaceLow,
    InvalidRequest,
    KeyNotSent,
    RequestTimeout,
    RequestTooLarge,
)
from api.errors.example_ids import IDS
from api.errors.table import BY_CLASS, ROWS
from store.errors import IdempotencyInFlight, IdempotencyMismatch, InvalidKey, RateLimited

JSON = "application/json"


def _names() -> dict[type[Exception], str]:
    """By its code; where several share one, the later ones by their class too."""
    found: dict[type[Exception], str] = {}
    for kind, row in BY_CLASS.items():
        found[kind] = row.code if row.code not in found.values() else f"{row.code}.{kind.__name__}"
    return found


NAMES = _names()
EXAMPLES = {NAMES[type(row.sample)]: {"value": body(row.sample, IDS)} for row in ROWS}
# What several routes may answer, by why.
EVERYWHERE = (InvalidRequest, KeyNotSent, InvalidKey, RateLimited, Exception, OperationalError, PoolTimeout)
BODY = (RequestTooLarge,)  # it takes one
FORM = (*BODY, ClientDisconnect, RequestTimeout)  # it takes one that may be long on the way
ONCE = (IdempotencyInFlight, IdempotencyMismatch)  # it takes an idempotency key
DISK_ERRORS = (DiskFull, DiskSpaceLow)  # it needs some


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None
    errors: list[dict[str, str | None]] | None = Field(
        None, description="Every error of the request, at most 50.", max_length=LISTED
    )
    more_errors: int | None = Field(None, description="Errors beyond those of `errors`.")
    generation_id: str | None = Field(None, description="Of images that were not generated, or not yet.")


class Error(BaseModel):
    error: ErrorDetail


def failures(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """Of a route that raises these, besides what every route under /v1 may answer."""
    return documented(*kinds, *EVERYWHERE) | {
        "default": {"model": Error, "description": "Any other error, in the same shape."}
    }


def documented(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """By status, with an example of each; the document has EXAMPLES, which they refer to."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in sorted(kinds, key=lambda kind: BY_CLASS[kind].status):
        status = BY_CLASS[kind].status
        response = found.setdefault(status, _response(status))
        response["content"][JSON]["examples"][NAMES[kind]] = {"$ref": f"#/components/examples/{NAMES[kind]}"}
    return found


def _response(status: int) -> dict[str, Any]:
    return {"model": Error, "description": HTTPStatus(status).phrase, "content": {JSON: {"examples": {}}}}
