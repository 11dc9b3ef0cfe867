"""Every error that a client can meet: one row an error.

The answers (api/errors/answers.py), the examples and headers of the OpenAPI document (api/errors/responses.py,
api/http/documented_headers.py) and the table of codes in docs/reference/errors.md (api/errors/docs.py) are made of
these rows.

To add an error: its class in api/errors/errors.py or store/errors.py, a row here, and ``python -m api.errors.docs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from string import Formatter
from types import MappingProxyType
from typing import Any

from obstore.exceptions import BaseError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect

from api.errors import errors as of_api
from api.errors.example_ids import BASE, DATASET, DELIVERY, FILE, GENERATION, JOB, MODEL, PAIR, UPLOAD, WEBHOOK
from api.errors.field_errors import FieldError
from api.errors.rate_headers import rate_headers
from store import errors as of_store

Headers = Mapping[str, str]

# The openai SDK repeats 408, 409, 429 and 5xx by itself. It obeys this header where repeating changes nothing.
NO_RETRY: Headers = MappingProxyType({"x-should-retry": "false"})
RETRY_IN_5_SECONDS: Headers = MappingProxyType({"retry-after": "5"})
BEARER: Headers = MappingProxyType({"www-authenticate": "Bearer"})
CLOSE: Headers = MappingProxyType({"connection": "close"})  # the rest of the body must not be waited for
SERVER_FAILED = "The server failed; its log holds the reason under this id."
UUID = "b29dd6e3-0d3b-4b0e-9c0b-6a2d5a1f4c77"
MIB = 2**20


@dataclass(frozen=True)
class ErrorRow:
    """What a client gets for errors of the class of ``sample``, which is also the example in the documents.

    ``message`` replaces the error's own words where those are not for users. ``hint`` follows the message: the route
    that lists valid ids; its ``{names}`` are filled from the request's ids. ``headers`` may be computed from the error.
    ``expected``: a traceback in the log would explain nothing.
    """

    sample: Exception
    status: int
    code: str
    param: str | None = None
    message: str | None = None
    hint: str | None = None
    headers: Headers | Callable[[Any], Headers] = field(default_factory=dict)
    expected: bool = False

    def headers_of(self, error: Exception) -> Headers:
        return self.headers(error) if callable(self.headers) else self.headers


def _rate_limited(error: of_store.RateLimited) -> Headers:
    return rate_headers(error.burst, 0, error.full_in) | {"retry-after": str(ceil(error.retry_in))}


ROWS = (
    ErrorRow(
        of_api.InvalidRequest(
            [FieldError("limit", "limit: Input should be greater than or equal to 1 (given: '0').", "invalid_value")]
        ),
        400,
        "invalid_request",
    ),
    ErrorRow(
        ClientDisconnect(), 400, "client_disconnected", message="The client disconnected before the end of the body."
    ),
    ErrorRow(of_api.KeyInUrl("api_key"), 400, "api_key_in_url"),
    ErrorRow(of_store.CursorUnknown("file-0"), 400, "invalid_cursor", "after"),
    ErrorRow(of_api.KeyNotSent(), 401, "invalid_api_key", headers=BEARER),
    ErrorRow(of_store.InvalidKey(), 401, "invalid_api_key", headers=BEARER),
    ErrorRow(of_store.InsufficientRole("read-only", "member"), 403, "insufficient_role"),
    ErrorRow(
        of_store.QuotaExceeded(
            "stored bytes", limit=1_000_000, used=999_000, more=2_000, remedy="Delete files that are not needed"
        ),
        403,
        "quota_exceeded",
    ),
    ErrorRow(of_store.ModelIsBase(BASE), 403, "model_is_base", "model"),
    ErrorRow(
        of_store.FileNotFound(FILE), 404, "file_not_found", "file_id", hint="GET /v1/files lists the existing ones"
    ),
    ErrorRow(
        of_store.JobNotFound(JOB),
        404,
        "fine_tuning_job_not_found",
        "fine_tuning_job_id",
        hint="GET /v1/fine_tuning/jobs lists the existing ones",
    ),
    ErrorRow(
        of_store.ModelNotFound(MODEL), 404, "model_not_found", "model", hint="GET /v1/models lists the existing ones"
    ),
    ErrorRow(
        of_store.UploadNotFound(UPLOAD),
        404,
        "upload_not_found",
        "upload_id",
        hint="POST /v1/uploads creates one and returns its id",
    ),
    ErrorRow(
        of_store.GenerationNotFound(GENERATION),
        404,
        "image_generation_not_found",
        "generation_id",
        hint="POST /v1/images/generations creates one and returns its id",
    ),
    ErrorRow(
        of_store.ImageNotFound(f"{GENERATION}/images/4"),
        404,
        "image_not_found",
        "index",
        hint="GET /v1/images/generations/{generation_id} lists the existing ones",
    ),
    ErrorRow(
        of_store.WebhookNotFound(WEBHOOK),
        404,
        "webhook_not_found",
        "webhook_id",
        hint="GET /v1/webhooks lists the existing ones",
    ),
    ErrorRow(
        of_store.DeliveryNotFound(DELIVERY),
        404,
        "webhook_delivery_not_found",
        "delivery_id",
        hint="GET /v1/webhooks/{webhook_id}/deliveries lists the existing ones",
    ),
    ErrorRow(
        of_store.DatasetNotFound(DATASET),
        404,
        "dataset_not_found",
        "dataset_id",
        hint="GET /v1/datasets lists the existing ones",
    ),
    ErrorRow(
        of_store.RevisionNotFound(f"{DATASET}@9"),
        404,
        "revision_not_found",
        "revision",
        hint="GET /v1/datasets/{dataset_id}/revisions lists the existing ones",
    ),
    ErrorRow(
        of_store.PairNotFound(PAIR),
        404,
        "pair_not_found",
        "pair_id",
        hint="GET /v1/datasets/{dataset_id}/pairs lists the existing ones",
    ),
    ErrorRow(
        of_store.RejectedNotFound(PAIR),
        404,
        "rejected_not_found",
        "side",
        hint="GET /v1/datasets/{dataset_id}/pairs/{pair_id} shows the pair",
    ),
    ErrorRow(of_api.UnknownUrl("/v1/file"), 404, "unknown_url"),
    ErrorRow(
        of_api.MethodNotAllowed("/v1/models", "PUT", "GET"),
        405,
        "method_not_allowed",
        headers=lambda error: {"allow": error.allowed},
    ),
    ErrorRow(of_api.RequestTimeout(60.0, 100, 245_760), 408, "request_timeout", headers=CLOSE),
    ErrorRow(of_api.RequestTooLong(21_600.0), 408, "request_timeout", headers=CLOSE),
    ErrorRow(of_store.IllegalTransition(JOB, "paused", "succeeded"), 409, "invalid_job_state", headers=NO_RETRY),
    ErrorRow(of_store.UploadNotPending(UPLOAD, "expired"), 409, "invalid_upload_state", "upload_id", headers=NO_RETRY),
    ErrorRow(of_store.TooManyParts(UPLOAD), 409, "too_many_parts", "upload_id", headers=NO_RETRY),
    ErrorRow(of_store.TooManyWebhooks(16), 409, "too_many_webhooks", headers=NO_RETRY),
    ErrorRow(of_store.WebhookDisabled(WEBHOOK), 409, "webhook_disabled", "webhook_id", headers=NO_RETRY),
    ErrorRow(of_store.FileInUse(FILE, JOB), 409, "file_in_use", "file_id", headers=NO_RETRY),
    ErrorRow(of_api.NoReport(FILE, "uploaded"), 409, "no_report", "file_id", headers=NO_RETRY),
    # The same request succeeds after a while.
    ErrorRow(of_api.FileNotProcessed(FILE), 409, "file_not_processed", "file_id"),
    ErrorRow(of_api.ReportNotReady(DATASET, 120, 400), 409, "report_not_ready", "dataset_id"),
    ErrorRow(of_api.GenerationCancelled(GENERATION), 409, "generation_cancelled", headers=NO_RETRY),
    ErrorRow(of_store.IdempotencyInFlight(UUID), 409, "idempotency_in_flight"),
    ErrorRow(of_api.RequestTooLarge(MIB), 413, "request_too_large"),
    ErrorRow(
        of_api.RangeNotSatisfiable(62_113_764),
        416,
        "range_not_satisfiable",
        headers=lambda error: {"content-range": f"bytes */{error.size}"},
    ),
    ErrorRow(of_store.IdempotencyMismatch(UUID), 422, "idempotency_mismatch"),
    ErrorRow(
        of_store.RateLimited(1200, burst=300, full_in=15.0, retry_in=0.6),
        429,
        "rate_limit_exceeded",
        headers=_rate_limited,
    ),
    ErrorRow(
        of_store.AddressRateLimited(600, burst=100, full_in=10.0, retry_in=0.1),
        429,
        "rate_limit_exceeded",
        headers=_rate_limited,
    ),
    ErrorRow(of_api.TooManyOpenRequests(200), 429, "too_many_open_requests", headers=RETRY_IN_5_SECONDS),
    ErrorRow(of_api.TooManyStreams(50), 429, "too_many_streams", headers=RETRY_IN_5_SECONDS),
    ErrorRow(
        of_store.BlobMissing("0" * 64),
        500,
        "file_content_missing",
        message="The file's content is missing from storage.",
    ),
    ErrorRow(
        of_api.GenerationFailed(GENERATION, "the worker's device has no memory left."),
        500,
        "generation_failed",
        headers=NO_RETRY,
        expected=True,
    ),
    ErrorRow(OSError(), 500, "internal_error", message=SERVER_FAILED),
    ErrorRow(BaseError(), 500, "internal_error", message=SERVER_FAILED),
    ErrorRow(Exception(), 500, "internal_error", message=SERVER_FAILED),
    ErrorRow(
        of_api.NotReady({"database": "no answer", "broker": "ok", "blobs": "ok", "disk": "ok"}, ["database"]),
        503,
        "not_ready",
        expected=True,
    ),
    ErrorRow(of_api.GenerationQueued(GENERATION), 503, "generation_queued", headers=RETRY_IN_5_SECONDS, expected=True),
    ErrorRow(
        OperationalError("", None, Exception()),
        503,
        "database_unavailable",
        message="The database does not answer; try again.",
    ),
    ErrorRow(PoolTimeout(), 503, "overloaded", message="Every database connection is in use; try again."),
    ErrorRow(
        of_api.GenerationRunning(GENERATION), 504, "generation_running", headers=RETRY_IN_5_SECONDS, expected=True
    ),
    ErrorRow(of_api.DiskFull(), 507, "insufficient_storage", headers=NO_RETRY),
    ErrorRow(of_api.DiskSpaceLow(800 * MIB, 1024 * MIB), 507, "insufficient_storage", headers=NO_RETRY, expected=True),
)
BY_CLASS: Mapping[type[Exception], ErrorRow] = MappingProxyType({type(row.sample): row for row in ROWS})
# Errors of the store that no route lets out, with the reason; any other has a row.
NEVER_ANSWERED: Mapping[type[Exception], str] = MappingProxyType(
    {
        of_store.LeaseLost: "only workers hold leases",
        of_store.WebhookUrlNotAllowed: "api/webhooks/request.py reports it as an error of the request",
        of_store.BasesInvalid: "it ends the start of a process",
    }
)


def row_of(error: Exception) -> ErrorRow:
    """Of the nearest of the error's classes that has one."""
    return next(BY_CLASS[kind] for kind in type(error).__mro__ if kind in BY_CLASS)


def message_of(error: Exception, ids: Mapping[str, object] = MappingProxyType({})) -> str:
    """In words for the client. ``ids`` are those that the request names; a hint that needs others is left out."""
    row = row_of(error)
    message = row.message or str(error)
    if row.hint is None:
        return message
    needed = {name for _, name, _, _ in Formatter().parse(row.hint) if name is not None}
    return f"{message} {row.hint.format_map(ids)}." if needed <= ids.keys() else message
