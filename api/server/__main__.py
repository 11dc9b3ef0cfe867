"""``python -m api.server``: the API on a port, in one process or several, with the limits of api/server/connection.py.

It logs its requests itself, so uvicorn does not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import signal
import tempfile
import threading
from typing import TYPE_CHECKING

import uvicorn

from api.server.connection import LimitedConnection
from store.logs import configure_logs
from store.settings import Settings, settings

if TYPE_CHECKING:
    from fastapi import FastAPI

STOP_SECONDS = 5  # for the requests that are open at the end
HEALTH_CHECK_SECONDS = 30  # a process that works may be busy for seconds, with a large image for example
FILES_BESIDE_CONNECTIONS = 1024  # of uploads, downloads, PostgreSQL and the broker
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported


def main() -> None:
    configured = settings()
    _ = configured.required_database_url, configured.required_broker_url  # else each process of the API would say so
    arguments = _arguments(configured)
    configure_logs()
    _allow_files(configured.max_connections + FILES_BESIDE_CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="pairtune-metrics-") as metrics:
        if configured.api_processes > 1:
            os.environ[METRICS_VARIABLE] = metrics
        uvicorn.run(
            "api.server.__main__:application",
            factory=True,
            host=arguments.host,
            port=arguments.port,
            workers=configured.api_processes,
            http=LimitedConnection,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_worker_healthcheck=HEALTH_CHECK_SECONDS,
        )


def application() -> FastAPI:
    """The application, in a process that ends when the one that started it has ended."""
    from api.main import create_app  # the parent of several processes needs none of it

    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    return create_app()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _arguments(configured: Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api.server", description="The API.")
    parser.add_argument("--host", default=configured.host, help="address to listen on")
    parser.add_argument("--port", default=configured.port, type=int, help="port to listen on; 0 takes a free one")
    return parser.parse_args()


def _allow_files(number: int) -> None:
    """Raise the limit of open files of this process and its children, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
