"""What can go wrong in the store.

StoreError
├── NotFound             FileNotFound, UploadNotFound, JobNotFound, CheckpointNotFound, ModelNotFound,
│                        GenerationNotFound, ImageNotFound, WebhookNotFound, DeliveryNotFound
├── IllegalTransition    the job's state does not allow this
├── LeaseLost            another attempt owns the row, or nobody does
├── InvalidKey           no such API key, or it was revoked
├── FileInUse            an unfinished job still needs the file
├── IdempotencyInFlight  the first request with this key is not answered yet
├── IdempotencyMismatch  the key was used for another request
├── UploadNotPending     the upload was completed, cancelled or has expired
├── TooManyParts         more parts, or more bytes in them, than the upload can be made of
├── TooManyWebhooks      the project has as many endpoints as it may have
├── WebhookDisabled      nothing is sent to the endpoint any more
├── WebhookUrlRefused    nothing may be sent to where the URL leads
├── BlobMissing          a row names a blob that the blob store does not hold
└── BasesInvalid         the operator's list of base models cannot be read
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all store errors; ``str`` of it is fit for a user."""


class NotFound(StoreError):
    kind = "object"

    def __init__(self, identifier: str) -> None:
        super().__init__(f"No such {self.kind}: '{identifier}'.")
        self.identifier = identifier


class FileNotFound(NotFound):
    kind = "file"


class UploadNotFound(NotFound):
    kind = "upload"


class JobNotFound(NotFound):
    kind = "fine-tuning job"


class CheckpointNotFound(NotFound):
    kind = "checkpoint"


class ModelNotFound(NotFound):
    kind = "model"


class GenerationNotFound(NotFound):
    kind = "image generation"


class ImageNotFound(NotFound):
    kind = "image"


class WebhookNotFound(NotFound):
    kind = "webhook"


class DeliveryNotFound(NotFound):
    kind = "webhook delivery"


class IllegalTransition(StoreError):
    def __init__(self, job_id: str, action: str, status: str) -> None:
        super().__init__(f"Job {job_id} is {status} and cannot be {action}.")
        self.job_id, self.action, self.status = job_id, action, status


class LeaseLost(StoreError):
    def __init__(self, row_id: str, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} no longer owns {row_id}.")
        self.row_id, self.attempt = row_id, attempt


class InvalidKey(StoreError):
    def __init__(self) -> None:
        super().__init__("This API key does not exist or was revoked.")


class FileInUse(StoreError):
    def __init__(self, file_id: str, job_id: str) -> None:
        super().__init__(f"File {file_id} is still needed by job {job_id}; cancel the job or wait for its end.")
        self.file_id, self.job_id = file_id, job_id


class IdempotencyInFlight(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"A request with Idempotency-Key '{key}' is being worked on; send it again in a moment.")
        self.key = key


class IdempotencyMismatch(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key '{key}' was used for another request; give this one a key of its own.")
        self.key = key


class UploadNotPending(StoreError):
    def __init__(self, upload_id: str, status: str) -> None:
        super().__init__(f"Upload {upload_id} is {status}; only a pending one can be added to or ended.")
        self.upload_id, self.status = upload_id, status


class TooManyParts(StoreError):
    def __init__(self, upload_id: str) -> None:
        super().__init__(f"Upload {upload_id} has been sent more parts than its bytes can need; cancel it, start anew.")
        self.upload_id = upload_id


class TooManyWebhooks(StoreError):
    def __init__(self, most: int) -> None:
        super().__init__(f"The project has {most} webhooks, the most there may be; delete one that is not needed.")
        self.most = most


class WebhookDisabled(StoreError):
    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"Webhook {endpoint_id} is disabled, as its receiver answered 410 Gone; create it anew.")
        self.endpoint_id = endpoint_id


class WebhookUrlRefused(StoreError):
    """``reason`` goes on from the word "url"."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The URL {reason}.")
        self.reason = reason


class BlobMissing(StoreError):
    def __init__(self, sha256: str) -> None:
        super().__init__(f"Blob {sha256} is missing from the blob store.")
        self.sha256 = sha256


class BasesInvalid(StoreError):
    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"The list of base models, {path}, cannot be used: {reason}")
        self.path = path
