"""What the API itself finds wrong; api/answers.py makes HTTP of it.

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
└── NotReady               something that the API needs does not answer, or is an older version's
"""

from __future__ import annotations

from collections.abc import Sequence

from api.faults import Fault


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
    """``silent``: the needed parts that do not answer; none of them: the database is an older version's."""

    def __init__(self, checks: dict[str, str], silent: Sequence[str]) -> None:
        outdated = "The database lacks migrations of this version: run `python -m migrations`."
        super().__init__(f"No answer from: {', '.join(silent)}." if silent else outdated)
        self.checks = checks
