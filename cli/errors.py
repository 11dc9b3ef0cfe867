"""What goes wrong for the command line, and the exit code of each.

CommandError             1   something is wrong on this machine
├── MissingExtra         1   a package of an extra is not installed
├── WrongUsage           2   the arguments or settings are wrong
├── NoKey                2   no API key is configured
├── NotReachable         3   no API answers at the URL
├── NotAnApi             3   the server at the URL is not a pairtune API
├── RequestFailed       4   the API answered with an error; its message says what to do
├── JobEnded             5   the job failed, was cancelled or is paused
├── GenerationFailed     5   the images could not be generated
├── WaitTimeout          6   the wait ended; the job or file continues
└── Interrupted        130   Ctrl-C ended the wait; the job continues
"""

from __future__ import annotations

from typing import Any


class CommandError(Exception):
    """Base: the message for the terminal."""

    exit_code = 1


class WrongUsage(CommandError):
    exit_code = 2


class NoKey(CommandError):
    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(f"No API key: set PAIRTUNE_API_KEY, or start `pairtune up`, which writes {path}.")


class NotReachable(CommandError):
    exit_code = 3
    retry_after = 0.0

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"No answer from {url} ({reason}). Start `pairtune up`, or set PAIRTUNE_URL.")


class NotAnApi(CommandError):
    exit_code = 3

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url} answers ({status}), but is not a pairtune API. Correct PAIRTUNE_URL.")


class RequestFailed(CommandError):
    """``details`` is the error's object in the answer; ``retry_after`` in seconds, 0 where the answer does not say."""

    exit_code = 4

    def __init__(self, status: int, details: dict[str, Any], request_id: str | None, retry_after: float = 0.0) -> None:
        self.status = status
        self.code: str | None = details.get("code")
        self.generation_id: str | None = details.get("generation_id")
        self.retry_after = retry_after
        marks = (str(status), self.code, f"request {request_id}" if request_id else None)
        super().__init__(f"{details['message']} [{', '.join(mark for mark in marks if mark)}]")


class JobEnded(CommandError):
    exit_code = 5

    def __init__(self, job_id: str, status: str, reason: str | None) -> None:
        super().__init__(f"{job_id} is {status}{f': {reason}' if reason else '.'}")


class GenerationFailed(CommandError):
    exit_code = 5

    def __init__(self, generation_id: str, reason: str) -> None:
        super().__init__(f"{generation_id} failed: {reason}")


class WaitTimeout(CommandError):
    exit_code = 6

    def __init__(self, what: str, status: str) -> None:
        super().__init__(f"{what} is still {status} and continues.")


class Interrupted(CommandError):
    exit_code = 130  # as shells have it for SIGINT
