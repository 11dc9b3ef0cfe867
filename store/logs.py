"""Structured logs of every service: one JSON object a line on stderr, with the request's id where there is one."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import TextIO, cast

import structlog

# Without local variables: among them are headers, and in those the callers' keys.
TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


class WhileThereIsRoom(io.TextIOBase):
    """Lines that cannot be written are dropped: with the log on a full disk, a request must still be answered."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logs() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")  # what libraries say
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(TRACEBACKS),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", WhileThereIsRoom(sys.stderr))),
    )
