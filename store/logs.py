"""Structured logs of every service: one JSON object a line on stderr, with the request's id where there is one.

What libraries say through ``logging``, uvicorn and celery among them, comes out as the same lines; ``logger`` says
which of them speaks.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import TextIO, cast

import structlog

# Without local variables: among them are headers, and in those the callers' keys.
TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
COMMON: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
RENDERED: list[structlog.typing.Processor] = [
    structlog.processors.ExceptionRenderer(TRACEBACKS),
    structlog.processors.JSONRenderer(),
]
UVICORN = "uvicorn"  # the logger that uvicorn gives a handler before it loads the application
UVICORN_ACCESS = "uvicorn.access"  # its lines hold query strings; the API logs each request itself


class LossyStream(io.TextIOBase):
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
    stream = cast("TextIO", LossyStream(sys.stderr))
    structlog.configure(
        processors=[*COMMON, *RENDERED],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    records = logging.StreamHandler(stream)
    records.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *COMMON],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *RENDERED],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[records])
    logging.captureWarnings(True)
    for name, propagates in ((UVICORN, True), (UVICORN_ACCESS, False)):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = propagates
