"""The error responses of a route in the OpenAPI document, each with what is answered then, as the server words it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from obstore.exceptions import BaseError
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect

from api.answers import ANSWERS, body
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
from api.example_ids import DATASET, DELIVERY, FILE, GENERATION, IDS, JOB, MODEL, PAIR, UPLOAD, WEBHOOK
from api.faults import Fault
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

JSON = "application/json"
UUID = "b29dd6e3-0d3b-4b0e-9c0b-6a2d5a1f4c77"
FAULT = Fault("limit", "limit: Input should be greater than or equal to 1 (given: '0').", "invalid_value")
_DELETE = "Delete files that are not needed"
SAMPLES: tuple[Exception, ...] = (
    InvalidRequest([FAULT]),
    ClientDisconnect(),
    CursorUnknown("file-0"),
    KeyNotSent(),
    InvalidKey(),
    InsufficientRole("read-only", "member"),
    QuotaExceeded("stored bytes", most=1_000_000, used=999_000, more=2_000, remedy=_DELETE),
    ModelIsBase("emoji-xl"),
    FileNotFound(FILE),
    JobNotFound(JOB),
    ModelNotFound(MODEL),
    UploadNotFound(UPLOAD),
    GenerationNotFound(GENERATION),
    ImageNotFound(f"{GENERATION}/images/4"),
    WebhookNotFound(WEBHOOK),
    DeliveryNotFound(DELIVERY),
    DatasetNotFound(DATASET),
    RevisionNotFound(f"{DATASET}@9"),
    PairNotFound(PAIR),
    RejectedNotFound(PAIR),
    RequestTimeout(60.0),
    IllegalTransition(JOB, "paused", "succeeded"),
    UploadNotPending(UPLOAD, "expired"),
    TooManyParts(UPLOAD),
    TooManyWebhooks(16),
    WebhookDisabled(WEBHOOK),
    FileInUse(FILE, JOB),
    NoReport(FILE, "uploaded"),
    FileNotProcessed(FILE),
    ReportNotReady(DATASET, 120, 400),
    IdempotencyInFlight(UUID),
    RequestTooLarge(1_048_576),
    RangeNotSatisfiable(62_113_764),
    IdempotencyMismatch(UUID),
    RateLimited(1200, burst=300, full_in=15.0, retry_in=0.6),
    BlobMissing("0" * 64),
    GenerationFailed(GENERATION, "the worker's device has no memory left."),
    OSError(),
    BaseError(),
    Exception(),
    NotReady({"database": "no answer", "broker": "ok", "blobs": "ok", "disk": "ok"}, ["database"]),
    GenerationQueued(GENERATION),
    OperationalError("", None, Exception()),
    PoolTimeout(),
    GenerationRunning(GENERATION),
    DiskFull(),
    LittleRoom(800 * 2**20, 1024 * 2**20),
)
BY_KIND = {type(sample): sample for sample in SAMPLES}


def _names() -> dict[type[Exception], str]:
    """By its code; where several share one, the later ones by their kind too."""
    found: dict[type[Exception], str] = {}
    for kind in BY_KIND:
        code = ANSWERS[kind].code
        found[kind] = code if code not in found.values() else f"{code}.{kind.__name__}"
    return found


NAMES = _names()
EXAMPLES = {NAMES[kind]: {"value": body(sample, IDS)} for kind, sample in BY_KIND.items()}
# What several routes may answer, by why.
EVERYWHERE = (InvalidRequest, KeyNotSent, InvalidKey, RateLimited, Exception, OperationalError, PoolTimeout)
BODY = (RequestTooLarge,)  # it takes one
FORM = (*BODY, ClientDisconnect, RequestTimeout)  # it takes one that may be long on the way
ONCE = (IdempotencyInFlight, IdempotencyMismatch)  # it takes an idempotency key
ROOM = (DiskFull, LittleRoom)  # it needs some


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None
    errors: list[dict[str, str | None]] | None = Field(None, description="Every fault, where there are several.")
    generation_id: str | None = Field(None, description="Of images that were not drawn, or not yet.")


class Error(BaseModel):
    error: ErrorDetail


def failures(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """Of a route that raises these, beside what every route under /v1 may answer."""
    return documented(*kinds, *EVERYWHERE) | {
        "default": {"model": Error, "description": "Any other error, in the same shape."}
    }


def documented(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """By status, with an example of each; api/document.py puts EXAMPLES, which they refer to, into the document."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in sorted(kinds, key=lambda kind: ANSWERS[kind].status):
        status = ANSWERS[kind].status
        response = found.setdefault(status, _response(status))
        response["content"][JSON]["examples"][NAMES[kind]] = {"$ref": f"#/components/examples/{NAMES[kind]}"}
    return found


def _response(status: int) -> dict[str, Any]:
    return {"model": Error, "description": HTTPStatus(status).phrase, "content": {JSON: {"examples": {}}}}
