"""Errors become HTTP here, in OpenAI's shape, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi import Request
from fastapi.responses import JSONResponse

from api.errors.edge_headers import edge_headers
from api.errors.errors import DiskFull, GenerationFailed, GenerationQueued, GenerationRunning, InvalidRequest, NotReady
from api.errors.field_errors import shortened
from api.errors.table import message_of, row_of
from store.blobs.full_disk import says_full_disk

log = structlog.get_logger()
MESSAGE_CHARACTERS = 1000  # a path or an id that a message repeats may be as long as a request's head


def respond(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error, by the nearest of its classes in the table."""
    error = _named(error)
    row = row_of(error)
    if row.status >= 500:
        log.error("request.failed", code=row.code, exc_info=None if row.expected else error)
    # The handler of last resort runs outside the middleware that sets these on every other answer.
    edge = edge_headers(request.scope) if row.status == 500 else {}
    return JSONResponse(body(error, request.path_params), row.status, headers={**edge, **row.headers_of(error)})


def body(error: Exception, ids: Mapping[str, object]) -> dict[str, object]:
    """In OpenAI's shape. ``ids`` are those that the request names, by their parameters."""
    row = row_of(error)
    field_errors = error.field_errors if isinstance(error, InvalidRequest) else ()
    message = message_of(error, ids)
    described: dict[str, object] = {
        "message": message if field_errors else shortened(message, MESSAGE_CHARACTERS),
        "type": "server_error" if row.status >= 500 else "invalid_request_error",
        "param": field_errors[0].param if field_errors else row.param,
        "code": (field_errors[0].code if field_errors else None) or row.code,
    }
    if field_errors:
        described["errors"] = [{"message": f.message, "param": f.param, "code": f.code} for f in field_errors]
    if isinstance(error, InvalidRequest) and error.more:
        described["more_errors"] = error.more
    if isinstance(error, GenerationFailed | GenerationQueued | GenerationRunning):
        described["generation_id"] = error.generation_id
    return {"error": described} | ({"checks": error.checks} if isinstance(error, NotReady) else {})


def _named(error: Exception) -> Exception:
    """A full disk is the same fact, whichever layer meets it: a file, the blob store, PostgreSQL."""
    if not says_full_disk(error):
        return error
    full = DiskFull()
    full.__cause__ = error  # for the log
    return full
