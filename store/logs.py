"""Structured logs of every service: one JSON object a line on stderr, with the request's id where there is one."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")  # what libraries say
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
