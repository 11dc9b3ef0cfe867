"""Errors become HTTP here, in OpenAI's shape, and nowhere else.

ApiError
├── KeyNotSent             the request carries no API key
├── InvalidRequest         what was sent cannot be used; holds every fault
├── RequestTooLarge        the body is over its cap
├── RequestTimeout         the client stopped sending half way
├── DiskFull               no room for what was sent
├── LittleRoom             nothing new is taken while so little of the disk is free
├── NoReport               the file was not read
├── FileNotProcessed       the file is still being read
├── ReportNotReady         not all images of the data set are measured yet
├── RangeNotSatisfiable    the file ends before the range begins
├── GenerationFailed       the images could not be drawn
├── GenerationQueued       nobody has begun to draw them in the time that a request waits
├── GenerationRunning      they are being drawn, for longer than a request waits
└── NotReady               something that the API needs does not answer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from obstore.exceptions import BaseError
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from api.faults import Fault
from api.rate_headers import rate_headers
from api.request_context import edge_headers
from api.whereabouts import in_words
from store.errors import (
    BlobMissing,
    CheckpointNotFound,
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


class ApiError(Exception):
    """Base of the errors that the API itself finds; ``str`` of it is fit for a user."""


class KeyNotSent(ApiError):
    def __init__(self) -> None:
        super().__init__(
            "This needs an API key in the header `Authorization: Bearer pt-...`; the operator makes one by "
            "`pairtune keys create NAME`."
        )


class InvalidRequest(ApiError):
    def __init__(self, faults: Sequence[Fault]) -> None:
        listed = "\n".join(f"- {fault.message}" for fault in faults)
        super().__init__(faults[0].message if len(faults) == 1 else f"{len(faults)} faults:\n{listed}")
        self.faults = tuple(faults)


class RequestTooLarge(ApiError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit} bytes, the most that is taken here.")
        self.limit = limit


class RequestTimeout(ApiError):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"Nothing more of the body came for {seconds:g} seconds; send the request again.")
        self.seconds = seconds


class DiskFull(ApiError):
    def __init__(self) -> None:
        super().__init__("The server has no room for this; nothing of it was kept. Its operator has to make room.")


class LittleRoom(ApiError):
    def __init__(self, free_bytes: int, kept_bytes: int) -> None:
        super().__init__(
            f"The server takes no new uploads, pairs or jobs for lack of disk space: {free_bytes // 2**20} MiB are "
            f"free, and the last {kept_bytes // 2**20} MiB are kept for work under way. Its operator has to make room."
        )


class NoReport(ApiError):
    def __init__(self, file_id: str, status: str) -> None:
        super().__init__(f"File {file_id} is {status} and has no report: one is made when an uploaded archive is read.")


class FileNotProcessed(ApiError):
    def __init__(self, file_id: str) -> None:
        super().__init__(f"File {file_id} is still being read; send the request again when its status is processed.")
        self.file_id = file_id


class ReportNotReady(ApiError):
    def __init__(self, dataset_id: str, measured: int, images: int) -> None:
        super().__init__(f"{measured} of {images} images of {dataset_id} are measured; ask again to go on.")
        self.dataset_id = dataset_id


class RangeNotSatisfiable(ApiError):
    def __init__(self, size: int) -> None:
        super().__init__(f"The range begins beyond the end: the file has {size} bytes.")
        self.size = size


class GenerationFailed(ApiError):
    def __init__(self, generation_id: str, reason: str) -> None:
        super().__init__(f"Images {generation_id} could not be drawn: {reason}")
        self.generation_id = generation_id


class GenerationQueued(ApiError):
    def __init__(self, generation_id: str) -> None:
        super().__init__(
            f"No worker has begun to draw yet. GET /v1/images/generations/{generation_id} tells when it is done; if "
            "that stays so, the operator has to start a worker for the queue 'draw'."
        )
        self.generation_id = generation_id


class GenerationRunning(ApiError):
    def __init__(self, generation_id: str) -> None:
        super().__init__(f"Still drawing. GET /v1/images/generations/{generation_id} tells when it is done.")
        self.generation_id = generation_id


class NotReady(ApiError):
    def __init__(self, checks: dict[str, str], missing: Sequence[str]) -> None:
        super().__init__(f"No answer from: {', '.join(missing)}.")
        self.checks = checks


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
    CheckpointNotFound: Answer(404, "checkpoint_not_found", "checkpoint_id"),
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


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None
    errors: list[dict[str, str | None]] | None = Field(None, description="Every fault, where there are several.")
    generation_id: str | None = Field(None, description="Of images that were not drawn, or not yet.")


class Error(BaseModel):
    error: ErrorDetail


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route in the OpenAPI document; 401, 429 and 503 are on all of them."""
    listed = sorted({401, 429, 503, *statuses})
    found: dict[int | str, dict[str, Any]] = {s: {"model": Error, "description": HTTPStatus(s).phrase} for s in listed}
    return found | {"default": {"model": Error, "description": "Any other error, in the same shape"}}


def install(app: FastAPI) -> None:
    for kind in ANSWERS:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _parameters)


def respond(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error, by the nearest of its classes in the table."""
    error = _named(error)
    answer = next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)
    if answer.status >= 500:
        foreseen = isinstance(error, (*FORESEEN, LittleRoom))
        log.error("request.failed", code=answer.code, exc_info=None if foreseen else error)
    faults = error.faults if isinstance(error, InvalidRequest) else ()
    body: dict[str, object] = {
        "message": answer.message or _words(error, request),
        "type": "server_error" if answer.status >= 500 else "invalid_request_error",
        "param": faults[0].param if faults else answer.param,
        "code": (faults[0].code if faults else None) or answer.code,
    }
    if faults:
        body["errors"] = [{"message": f.message, "param": f.param, "code": f.code} for f in faults]
    if isinstance(error, UNDRAWN):
        body["generation_id"] = error.generation_id
    whole: dict[str, object] = {"error": body}
    if isinstance(error, NotReady):
        whole["checks"] = error.checks
    return JSONResponse(whole, answer.status, headers=_headers(request, answer.status, error))


def _words(error: Exception, request: Request) -> str:
    return in_words(error, request.path_params) if isinstance(error, NotFound) else str(error)


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


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return respond(request, error)


async def _routing(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own: no such route, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    message, code = f"{HTTPStatus(status).phrase}.", "invalid_request"
    if status == 404:
        message, code = f"There is no {request.url.path}; /openapi.json lists what there is.", "unknown_url"
    elif status == 405:
        allowed = _methods(request)
        headers = {**headers, "Allow": allowed}
        message, code = f"{request.url.path} takes {allowed}, not {request.method}.", "method_not_allowed"
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": body}, status, headers=headers)


def path_methods(routers: Iterable[APIRouter]) -> list[tuple[re.Pattern[str], set[str]]]:
    """What each route takes; Starlette's own answer names the methods of one route of a path alone."""
    routes = (route for router in routers for route in router.routes if isinstance(route, Route | APIRoute))
    return [(route.path_regex, route.methods or set()) for route in routes]


def _methods(request: Request) -> str:
    taken = [methods for path, methods in request.app.state.methods if path.match(request.scope["path"])]
    return ", ".join(sorted(set().union(*taken)))


async def _parameters(request: Request, error: Exception) -> JSONResponse:
    """Query and path parameters; bodies are checked by the services, together with what they refer to."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    faults = []
    for fault in found:
        name = ".".join(str(part) for part in fault["loc"][1:])
        faults.append(Fault(name, f"{name}: {fault['msg']} (given: {fault['input']!r}).", "invalid_value"))
    return respond(request, InvalidRequest(faults))
