"""What goes wrong for the command line, and the exit code of each.

CommandError
├── NoKey             2   there is no key to be found
├── NotReachable      3   no API answers at the URL
├── Refused           4   the API says no; its message says what to do
└── JobEnded          5   the job failed or was cancelled
"""

from __future__ import annotations


class CommandError(Exception):
    """Base: the message for the terminal."""

    exit_code = 1


class NoKey(CommandError):
    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(f"No API key: set PAIRTUNE_API_KEY, or start `pairtune up`, which writes {path}.")


class NotReachable(CommandError):
    exit_code = 3

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"No answer from {url} ({reason}). Start `pairtune up`, or set PAIRTUNE_URL.")


class Refused(CommandError):
    exit_code = 4

    def __init__(self, status: int, message: str, code: str | None, request_id: str | None) -> None:
        marks = (str(status), code, f"request {request_id}" if request_id else None)
        super().__init__(f"{message} [{', '.join(mark for mark in marks if mark)}]")
        self.status = status
        self.code = code


class JobEnded(CommandError):
    exit_code = 5

    def __init__(self, job_id: str, status: str, reason: str | None) -> None:
        super().__init__(f"{job_id} is {status}{f': {reason}' if reason else '.'}")
