"""Logs: whoever speaks, a line is one JSON object with the same names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from store.settings import REPOSITORY

pytestmark = pytest.mark.unit

SPEAKERS = """
import logging, structlog, warnings
from store.logs import configure_logs
library = logging.getLogger("uvicorn")
library.addHandler(logging.StreamHandler())
library.propagate = False
configure_logs()
structlog.contextvars.bind_contextvars(request_id="r1")
structlog.get_logger().info("ours", figure=1)
logging.getLogger("uvicorn.error").info("Uvicorn running on %s", "http://127.0.0.1:1", extra={"color_message": "c"})
logging.getLogger("lib").debug("not logged")
warnings.warn("old ways")
try:
    raise ValueError("why")
except ValueError:
    logging.getLogger("lib").exception("two\\nlines")
"""


def test_records_of_libraries_are_lines_like_ours() -> None:
    ran = subprocess.run([sys.executable, "-c", SPEAKERS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    ours, server, warning, library = (json.loads(line) for line in ran.stderr.splitlines())
    assert (ours["event"], ours["level"], ours["request_id"], ours["figure"]) == ("ours", "info", "r1", 1)
    assert server.keys() == {"event", "logger", "level", "request_id", "timestamp"}
    assert (server["event"], server["logger"]) == ("Uvicorn running on http://127.0.0.1:1", "uvicorn.error")
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert "old ways" in warning["event"]
    assert (library["event"], library["level"], library["request_id"]) == ("two\nlines", "error", "r1")
    assert library["exception"][0]["exc_value"] == "why"
    assert "locals" not in library["exception"][0]["frames"][0]
