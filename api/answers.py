"""Errors become HTTP here, in OpenAI's shape, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import structlog
from fastapi import Request
from fastapi.responses import JSONResponse
from obstore.exceptions import BaseError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect

from api.errors import (
    DiskFull,
    FileNotProcessed,
    GenerationFailed,
    GenerationQueued,
    GenerationRunning,
    InvalidRequest,
    KeyNotSent,
    LittleRoom,
    NoReport,
    NotReady,
    RangeNotSatisfiable,
    ReportNotReady,
    RequestTimeout,
    RequestTooLarge,
)
from api.rate_headers import rate_headers
from api.request_context import edge_headers
from api.whereabouts import in_words
from store.errors import (
    BlobMissing,
    CursorUnknown,
    DatasetNotFound,
    DeliveryNotFound,
    FileInUse,
    FileNotFound,
    GenerationNotFound,
    IdempotencyInFlight,
    IdempotencyMismatch,
    IllegalTransition,
    ImageNotFound,
    InsufficientRole,
    InvalidKey,
    JobNotFound,
    ModelIsBase,
    ModelNotFound,
    NotFound,
    PairNotFound,
    QuotaExceeded,
    RateLimited,
    RejectedNotFound,
    RevisionNotFound,
    TooManyParts,
    TooManyWebhooks,
    UploadNotFound,
    UploadNotPending,
    WebhookDisabled,
    WebhookNotFound,
)
from store.full_disk import says_full_disk

log = structlog.get_logger()


@dataclass(frozen=True)
class Answer:
    """``message`` replaces the error's own words where those are not for users."""

    status: int
    code: str
    param: str | None = None
    message: str | None = None


# Passing states of a 409: the same request succeeds after a while.
PASSING = (IdempotencyInFlight, FileNotProcessed, ReportNotReady)
UNDRAWN = (GenerationFailed, GenerationQueued, GenerationRunning)
FORESEEN = (NotReady, *UNDRAWN)  # whose traceback tells nothing
LOOK_AGAIN_SECONDS = 5  # for images that were not drawn in time
FAILED = "The server failed; its log holds the reason under this id."
ANSWERS: dict[type[Exception], Answer] = {
    InvalidRequest: Answer(400, "invalid_request"),
    ClientDisconnect: Answer(400, "client_disconnected", message="The client went away before the body's end."),
    CursorUnknown: Answer(400, "invalid_cursor", "after"),
    KeyNotSent: Answer(401, "invalid_api_key"),
    InvalidKey: Answer(401, "invalid_api_key"),
    InsufficientRole: Answer(403, "insufficient_role"),
    QuotaExceeded: Answer(403, "quota_exceeded"),
    ModelIsBase: Answer(403, "model_is_base", "model"),
    FileNotFound: Answer(404, "file_not_found", "file_id"),
    JobNotFound: Answer(404, "fine_tuning_job_not_found", "fine_tuning_job_id"),
    ModelNotFound: Answer(404, "model_not_found", "model"),
    UploadNotFound: Answer(404, "upload_not_found", "upload_id"),
    GenerationNotFound: Answer(404, "image_generation_not_found", "generation_id"),
    ImageNotFound: Answer(404, "image_not_found", "index"),
    WebhookNotFound: Answer(404, "webhook_not_found", "webhook_id"),
    DeliveryNotFound: Answer(404, "webhook_delivery_not_found", "delivery_id"),
    DatasetNotFound: Answer(404, "dataset_not_found", "dataset_id"),
    RevisionNotFound: Answer(404, "revision_not_found", "revision"),
    PairNotFound: Answer(404, "pair_not_found", "pair_id"),
    RejectedNotFound: Answer(404, "rejected_not_found", "side"),
    RequestTimeout: Answer(408, "request_timeout"),
    IllegalTransition: Answer(409, "invalid_job_state"),
    UploadNotPending: Answer(409, "invalid_upload_state", "upload_id"),
    TooManyParts: Answer(409, "too_many_parts", "upload_id"),
    TooManyWebhooks: Answer(409, "too_many_webhooks"),
    WebhookDisabled: Answer(409, "webhook_disabled", "webhook_id"),
    FileInUse: Answer(409, "file_in_use", "file_id"),
    NoReport: Answer(409, "no_report", "file_id"),
    FileNotProcessed: Answer(409, "file_not_processed", "file_id"),
    ReportNotReady: Answer(409, "report_not_ready", "dataset_id"),
    IdempotencyInFlight: Answer(409, "idempotency_in_flight"),
    RequestTooLarge: Answer(413, "request_too_large"),
    RangeNotSatisfiable: Answer(416, "range_not_satisfiable"),
    IdempotencyMismatch: Answer(422, "idempotency_mismatch"),
    RateLimited: Answer(429, "rate_limit_exceeded"),
    BlobMissing: Answer(500, "file_content_missing", message="The file's content is gone from storage."),
    GenerationFailed: Answer(500, "generation_failed"),
    OSError: Answer(500, "internal_error", message=FAILED),
    BaseError: Answer(500, "internal_error", message=FAILED),
    Exception: Answer(500, "internal_error", message=FAILED),
    NotReady: Answer(503, "not_ready"),
    GenerationQueued: Answer(503, "generation_queued"),
    OperationalError: Answer(503, "database_unavailable", message="The database does not answer; try again."),
    PoolTimeout: Answer(503, "overloaded", message="Every database connection is in use; try again."),
    GenerationRunning: Answer(504, "generation_running"),
    DiskFull: Answer(507, "insufficient_storage"),
    LittleRoom: Answer(507, "insufficient_storage"),
}


def respond(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error, by the nearest of its classes in the table."""
    error = _named(error)
    answer = answer_to(error)
    if answer.status >= 500:
        foreseen = isinstance(error, (*FORESEEN, LittleRoom))
        log.error("request.failed", code=answer.code, exc_info=None if foreseen else error)
    headers = _headers(request, answer.status, error)
    return JSONResponse(body(error, request.path_params), answer.status, headers=headers)


def answer_to(error: Exception) -> Answer:
    return next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)


def body(error: Exception, ids: Mapping[str, object]) -> dict[str, object]:
    """In OpenAI's shape. ``ids`` are those that the request names, by their parameters."""
    answer = answer_to(error)
    faults = error.faults if isinstance(error, InvalidRequest) else ()
    told: dict[str, object] = {
        "message": answer.message or (in_words(error, ids) if isinstance(error, NotFound) else str(error)),
        "type": "server_error" if answer.status >= 500 else "invalid_request_error",
        "param": faults[0].param if faults else answer.param,
        "code": (faults[0].code if faults else None) or answer.code,
    }
    if faults:
        told["errors"] = [{"message": f.message, "param": f.param, "code": f.code} for f in faults]
    if isinstance(error, UNDRAWN):
        told["generation_id"] = error.generation_id
    return {"error": told} | ({"checks": error.checks} if isinstance(error, NotReady) else {})


def _named(error: Exception) -> Exception:
    """A full disk is the same fact, whichever layer meets it: a file, the blob store, PostgreSQL."""
    if not says_full_disk(error):
        return error
    full = DiskFull()
    full.__cause__ = error  # for the log
    return full


def _headers(request: Request, status: int, error: Exception) -> dict[str, str]:
    # The handler of last resort runs outside the middleware that sets these on every other answer.
    headers = edge_headers(request.scope) if status == 500 else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 408:
        headers["connection"] = "close"  # what is left of the body must not be waited for
    if status in (409, 507) and not isinstance(error, PASSING):
        # The openai SDK repeats these by itself; no state changes for that, and no disk grows.
        headers["x-should-retry"] = "false"
    if isinstance(error, RateLimited):
        headers |= rate_headers(error.burst, 0, error.full_in) | {"retry-after": str(ceil(error.retry_in))}
    if isinstance(error, GenerationFailed):
        headers["x-should-retry"] = "false"
    if isinstance(error, GenerationQueued | GenerationRunning):
        headers["retry-after"] = str(LOOK_AGAIN_SECONDS)
    if isinstance(error, RangeNotSatisfiable):
        headers["content-range"] = f"bytes */{error.size}"
    return headers
