"""What the API itself finds wrong; api/errors/table.py has the answer to each.

Every class derives from ApiError directly. Its docstring's first line says when it is raised; docs/reference/errors.md
shows that line.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.errors.field_errors import FieldError

LISTED = 50  # an answer must not grow with what is wrong in a request


class ApiError(Exception):
    """Base of the errors that the API itself finds; ``str`` of it is fit for a user."""


class KeyNotSent(ApiError):
    """The request carries no API key."""

    def __init__(self) -> None:
        super().__init__(
            "The request has no API key: send one in the header `Authorization: Bearer pt-...`. The operator creates "
            "keys with `pairtune keys create NAME`."
        )


class KeyInUrl(ApiError):
    """The URL contains an API key, which logs and proxies would store."""

    def __init__(self, parameter: str) -> None:
        super().__init__(
            f"The URL's parameter {parameter} contains an API key or stands for one: send the key in the header "
            "`Authorization: Bearer pt-...`. Logs may have stored this URL: have the operator revoke the key with "
            "`pairtune keys revoke`."
        )
        self.parameter = parameter


class TooManyOpenRequests(ApiError):
    """The project has too many open requests, transfers and streams included."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The project has {limit} open requests, which is the limit; send this one again when one has ended."
        )
        self.limit = limit


class TooManyStreams(ApiError):
    """The API key has too many open event streams."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This API key has {limit} open event streams, which is the limit; close one, or list the events instead."
        )
        self.limit = limit


class InvalidRequest(ApiError):
    """The request is not valid; `errors` lists the errors, up to 50 of them, each with its own code.

    ``more`` is the number of those that are not listed.
    """

    def __init__(self, field_errors: Sequence[FieldError]) -> None:
        total = sum(field_error.count for field_error in field_errors)
        self.field_errors = tuple(one for one in field_errors[:LISTED] if one.count == 1)
        self.more = total - len(self.field_errors)
        listed = "\n".join(f"- {field_error.message}" for field_error in self.field_errors)
        others = f"\n- and {self.more} more" if self.more else ""
        super().__init__(field_errors[0].message if total == 1 else f"{total} errors in the request:\n{listed}{others}")


class UnknownUrl(ApiError):
    """No route has this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"There is no route {path}; /openapi.json lists all routes.")
        self.path = path


class MethodNotAllowed(ApiError):
    """The path does not take this method; the header `Allow` lists those that it takes."""

    def __init__(self, path: str, method: str, allowed: str) -> None:
        super().__init__(f"{path} does not support {method}; use {allowed}.")
        self.path, self.method, self.allowed = path, method, allowed


class RequestTooLarge(ApiError):
    """The body is larger than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than the limit of {limit} bytes.")
        self.limit = limit


class RequestTimeout(ApiError):
    """The client sent the body too slowly, or stopped before its end."""

    def __init__(self, seconds: float, received: int, wanted: int) -> None:
        super().__init__(
            f"{received} bytes of the body arrived in {seconds:g} seconds, and at least {wanted} must; "
            "send the request again over a faster connection, or a large file in parts (POST /v1/uploads)."
        )
        self.seconds = seconds


class RequestTooLong(ApiError):
    """The body took longer than a body may take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The body was not complete after {seconds:g} seconds, the limit; send a large file in parts "
            "(POST /v1/uploads)."
        )
        self.seconds = seconds


class DiskFull(ApiError):
    """The disk, the blob store or PostgreSQL has no space left."""

    def __init__(self) -> None:
        super().__init__(
            "The server has no disk space left and stored nothing of this. Its operator has to free disk space."
        )


class DiskSpaceLow(ApiError):
    """The free disk space is below the server's reserve."""

    def __init__(self, free_bytes: int, min_free_bytes: int) -> None:
        super().__init__(
            f"The server takes no new uploads, pairs or jobs for lack of disk space: {free_bytes // 2**20} MiB are "
            f"free, and the last {min_free_bytes // 2**20} MiB are reserved for running work. "
            "Its operator has to free disk space."
        )


class NoReport(ApiError):
    """The file was not read as an archive of pairs."""

    def __init__(self, file_id: str, status: str) -> None:
        super().__init__(f"File {file_id} is {status} and has no report: one is made when an uploaded archive is read.")


class FileNotProcessed(ApiError):
    """The file is still being read."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"File {file_id} is still being read; send the request again when its status is processed.")
        self.file_id = file_id


class ReportNotReady(ApiError):
    """Not all images of the dataset are measured yet."""

    def __init__(self, dataset_id: str, measured: int, images: int) -> None:
        super().__init__(
            f"{measured} of {images} images of {dataset_id} are measured; send the request again to continue."
        )
        self.dataset_id = dataset_id


class RangeNotSatisfiable(ApiError):
    """The range begins beyond the file's end."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The range begins beyond the end: the file has {size} bytes.")
        self.size = size


class GenerationFailed(ApiError):
    """The generation failed; the message has the reason."""

    def __init__(self, generation_id: str, reason: str) -> None:
        super().__init__(f"Generation {generation_id} failed: {reason}")
        self.generation_id = generation_id


class GenerationCancelled(ApiError):
    """The generation was cancelled by a request."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(f"Generation {generation_id} was cancelled; send the request again if you want its images.")
        self.generation_id = generation_id


class GenerationQueued(ApiError):
    """No worker started the generation while the request waited."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(
            f"No worker has started this generation yet. GET /v1/images/generations/{generation_id} shows its status. "
            "If it stays queued, the operator has to start a worker for the queue 'draw'."
        )
        self.generation_id = generation_id


class GenerationRunning(ApiError):
    """The generation is still running; the request waited for its maximum time."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(
            f"The generation is still running. GET /v1/images/generations/{generation_id} shows its status."
        )
        self.generation_id = generation_id


class NotReady(ApiError):
    """Something that the API needs does not answer, or the database lacks migrations.

    ``silent``: the needed parts that do not answer; none of them: the database is an older version's.
    """

    def __init__(self, checks: dict[str, str], silent: Sequence[str]) -> None:
        outdated = "The database lacks migrations of this version: run `python -m migrations`."
        super().__init__(f"No answer from: {', '.join(silent)}." if silent else outdated)
        self.checks, self.silent = checks, silent
