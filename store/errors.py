"""What can go wrong in the store; api/errors/table.py has the answer to each that a route lets out.

Every class derives from StoreError directly, or from NotFound where an id names nothing in the project. Its docstring's
first line says when it is raised; docs/reference/http-api.md shows that line.
"""

from __future__ import annotations

from math import ceil


class StoreError(Exception):
    """Base of all store errors; ``str`` of it is fit for a user."""


class NotFound(StoreError):
    """The project has no such object."""

    kind = "object"

    def __init__(self, identifier: str) -> None:
        super().__init__(f"No such {self.kind}: '{identifier}'.")
        self.identifier = identifier


class FileNotFound(NotFound):
    kind = "file"


class UploadNotFound(NotFound):
    kind = "upload"


class DatasetNotFound(NotFound):
    kind = "dataset"


class RevisionNotFound(NotFound):
    kind = "revision of the dataset"


class PairNotFound(NotFound):
    kind = "pair of the dataset"


class RejectedNotFound(NotFound):
    """The pair has no rejected image."""

    kind = "rejected image of pair"


class JobNotFound(NotFound):
    kind = "fine-tuning job"


class ModelNotFound(NotFound):
    kind = "model"


class ModelIsBase(StoreError):
    """A base model is the operator's, so no project can delete it."""

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} is a base model, which only the operator can remove (bases.toml).")
        self.model = model


class GenerationNotFound(NotFound):
    kind = "image generation"


class ImageNotFound(NotFound):
    kind = "image"


class WebhookNotFound(NotFound):
    kind = "webhook"


class DeliveryNotFound(NotFound):
    kind = "webhook delivery"


class CursorUnknown(StoreError):
    """`after` names no object of the list."""

    def __init__(self, after: str) -> None:
        super().__init__(
            f"after: '{after}' is not in this list; pass the id of the last object of the page before, or omit it to "
            "start at the beginning."
        )
        self.after = after


class IllegalTransition(StoreError):
    """The job's state does not allow this."""

    def __init__(self, job_id: str, action: str, status: str) -> None:
        super().__init__(f"Job {job_id} is {status} and cannot be {action}.")
        self.job_id, self.action, self.status = job_id, action, status


class LeaseLost(StoreError):
    """Another attempt owns the row, or nobody does."""

    def __init__(self, row_id: str, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} no longer owns {row_id}.")
        self.row_id, self.attempt = row_id, attempt


class InvalidKey(StoreError):
    """The API key does not exist or was revoked."""

    def __init__(self) -> None:
        super().__init__(
            "This API key does not exist or was revoked; the operator creates another with `pairtune keys create NAME`."
        )


class InsufficientRole(StoreError):
    """The API key's role does not allow this."""

    def __init__(self, held: str, needed: str) -> None:
        super().__init__(
            f"This API key is {held}; this needs {'an' if needed == 'admin' else 'a'} {needed} key, which the operator "
            f"creates with `pairtune keys create NAME --role {needed}`."
        )
        self.held, self.needed = held, needed


class QuotaExceeded(StoreError):
    """The project's quota has no space left for this; the message says what is used.

    ``used`` and ``more`` are in the quota's own unit; ``remedy`` is what a user can do.
    """

    def __init__(self, quota: str, *, limit: int, used: int, more: int, remedy: str) -> None:
        super().__init__(
            f"The project's quota of {quota} is {limit}; {used} are used, and this needs {more} more. "
            f"{remedy}, or ask the operator for a larger quota."
        )
        self.quota, self.limit, self.used, self.more = quota, limit, used, more


class RateLimited(StoreError):
    """The API key has sent too many requests.

    ``retry_in``: seconds. ``burst``, ``full_in``: the bucket's size in requests, and seconds until it is full.
    """

    who = "This API key may send"

    def __init__(self, per_minute: int, *, burst: int, full_in: float, retry_in: float) -> None:
        super().__init__(
            f"{self.who} {per_minute} requests a minute, {burst} of them at once; "
            f"send this one again in {ceil(retry_in)} s."
        )
        self.per_minute, self.burst, self.full_in, self.retry_in = per_minute, burst, full_in, retry_in


class AddressRateLimited(RateLimited):
    """The address has sent too many requests without a valid API key."""

    who = "One address may send, without a valid API key,"


class FileInUse(StoreError):
    """An unfinished job still needs the file."""

    def __init__(self, file_id: str, job_id: str) -> None:
        super().__init__(f"File {file_id} is still needed by job {job_id}; cancel the job or wait for its end.")
        self.file_id, self.job_id = file_id, job_id


class IdempotencyInFlight(StoreError):
    """The first request with this idempotency key is not answered yet."""

    def __init__(self, key: str) -> None:
        super().__init__(f"A request with Idempotency-Key '{key}' is still in progress; send it again in a moment.")
        self.key = key


class IdempotencyMismatch(StoreError):
    """The idempotency key was used for another request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key '{key}' was used for another request; give this one a key of its own.")
        self.key = key


class UploadNotPending(StoreError):
    """The upload was completed, was cancelled or has expired."""

    def __init__(self, upload_id: str, status: str) -> None:
        super().__init__(
            f"Upload {upload_id} is {status}; only a pending upload takes parts and can be completed or cancelled."
        )
        self.upload_id, self.status = upload_id, status


class TooManyParts(StoreError):
    """The upload has more parts, or more bytes in them, than its file can be made of."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"Upload {upload_id} has more parts than its bytes can need; cancel it and start again.")
        self.upload_id = upload_id


class TooManyWebhooks(StoreError):
    """The project has as many webhooks as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The project has {limit} webhooks, which is the limit; delete one that is not needed.")
        self.limit = limit


class WebhookDisabled(StoreError):
    """The webhook's receiver answered 410 Gone, so nothing is sent to it any more."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"Webhook {endpoint_id} is disabled, as its receiver answered 410 Gone; create a new one.")
        self.endpoint_id = endpoint_id


class WebhookUrlNotAllowed(StoreError):
    """Nothing may be sent to where the URL leads.

    ``reason`` goes on from the word "url".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The URL {reason}.")
        self.reason = reason


class BlobMissing(StoreError):
    """A row names a blob that the blob store does not hold."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"Blob {sha256} is missing from the blob store.")
        self.sha256 = sha256


class BasesInvalid(StoreError):
    """The operator's list of base models cannot be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"The list of base models, {path}, cannot be used: {reason}")
        self.path = path
