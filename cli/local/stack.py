"""``pairtune up``: the whole of pairtune on one machine, in the foreground.

PostgreSQL and Valkey (unless their URLs are set), migrations, then the API, an intake worker, a training worker, one
that generates images and the dispatcher, each a process of its own with a log under HOME/logs. A service that dies is
started again; at the end all are stopped, and a running job checkpoints and goes back to the queue.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from cli.local.checks import broker_problem, storage
from cli.local.embedded import Embedded, Postgres, ServiceDidNotStart, Valkey
from cli.local.first_key import ensure_local_key
from cli.local.local_limits import without_rates
from cli.local.log_files import keep_small
from cli.local.private_home import make_private
from migrations.revision import DatabaseTooNew
from migrations.upgrade import upgrade
from store.base_models import read_bases
from store.database import unusable
from store.settings import REPOSITORY, Settings
from worker.runtime import process

READY_SECONDS = 60
RESTART_SECONDS = 2.0
READERS = 2  # of uploads: small ones are read while a large one is


class StackError(RuntimeError):
    """The stack cannot start; the text says what to do."""


@dataclass(frozen=True)
class Service:
    """A process of ours: ``command`` follows ``python -m``."""

    name: str
    command: tuple[str, ...]


def celery(queue: str, name: str, processes: int = 1) -> tuple[str, ...]:
    """A worker that runs the queue's tasks in that many processes."""
    pool = ("--pool", "prefork", "--concurrency", str(processes))
    quietly = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle")
    return (
        "celery",
        "--quiet",
        "--app",
        "worker.app",
        "worker",
        *pool,
        *quietly,
        "--queues",
        queue,
        "--hostname",
        name,
    )


def services(settings: Settings) -> list[Service]:
    """The API first: it is what the user waits for."""
    return [
        Service("api", ("api.server", "--host", settings.host, "--port", str(settings.port))),
        Service("worker-train", celery("train", "train@%h")),
        Service("worker-draw", celery("draw", "draw@%h")),
        Service("worker-intake", celery("intake", "intake@%h", READERS)),
        Service("dispatcher", ("worker.dispatcher",)),
    ]


@dataclass(frozen=True)
class Up:
    """What runs: ``url`` ends in /v1, ``first_key`` is the key if it was made just now.

    Only a terminal may show the key: anything else may be a log.
    """

    url: str
    home: str
    logs: str
    key_file: str
    first_key: str | None


def run_stack(settings: Settings, console: Console, ready: Callable[[Up], None]) -> None:
    """Returns after a signal to end, with everything stopped. Raises StackError, BasesInvalid, ServiceDidNotStart."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
        signal.signal(number, lambda *_: stop.set())
    home = settings.home.resolve()
    make_private(home)
    with ExitStack() as cleanup:
        cleanup.enter_context(_only_one(home))
        _check_port_is_free(settings)
        read_bases(settings.bases_file)
        _check_services(settings)
        embedded = _start_embedded(settings, home, cleanup)
        make_private(home)  # as root, PostgreSQL's package opens what lies above its folder
        environment = _environment(settings, home, embedded)
        _upgrade(environment["PAIRTUNE_DATABASE_URL"])
        first_key = ensure_local_key(environment["PAIRTUNE_DATABASE_URL"], home / "local.key")
        running = [Running(service, environment, home / "logs") for service in services(settings)]
        # The supervisor has work of its own after the trainer has ended.
        cleanup.callback(_stop_all, running, settings.grace_seconds + 5)
        for one in running:
            one.start()
        if _becomes_ready(settings, stop):
            url = f"http://{settings.host}:{settings.port}/v1"
            ready(Up(url, str(home), str(home / "logs"), str(home / "local.key"), first_key))
        logs = [store.log for store in embedded] + [one.log for one in running]
        while not stop.wait(0.5):
            for store in embedded:
                if _restart_if_dead(store, console):
                    make_private(home)
            for one in running:
                one.restart_if_dead(console)
            keep_small(logs)
        console.print("Stopping; a running job checkpoints first.")


class Running:
    """A service's process, started again when it ends unasked."""

    def __init__(self, service: Service, environment: Mapping[str, str], logs: Path) -> None:
        self._service = service
        self._environment = dict(environment)
        self.log = logs / f"{service.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self) -> None:
        command = [sys.executable, "-m", *self._service.command]
        self._process = process.start_logged(command, cwd=REPOSITORY, log=self.log, environment=self._environment)
        self._started_at = time.monotonic()

    def restart_if_dead(self, console: Console) -> None:
        if self._process is None or self._process.poll() is None:
            return
        if time.monotonic() - self._started_at < RESTART_SECONDS:
            return
        console.print(
            f"{self._service.name} ended with code {self._process.returncode}; starting it again ({self.log}).",
            soft_wrap=True,
        )
        process.end_group(self._process)  # what it had started, which may still listen on its port
        self.start()

    def ask_to_stop(self) -> None:
        if self._process is not None:
            process.signal_child(self._process, signal.SIGTERM)

    def end(self, within_seconds: float) -> None:
        """Wait for it to end by itself; kill what is left then."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, within_seconds))
        process.end_group(self._process)


def _stop_all(running: Sequence[Running], grace_seconds: float) -> None:
    """All at once: each takes as long as what it was doing, and the stores that they write to still run."""
    for one in running:
        one.ask_to_stop()
    ends_at = time.monotonic() + grace_seconds
    for one in running:
        one.end(ends_at - time.monotonic())


def _start_embedded(settings: Settings, home: Path, cleanup: ExitStack) -> list[Embedded]:
    """What no URL is set for."""
    embedded: list[Embedded] = []
    if settings.database_url is None:
        embedded.append(Postgres(home))
        cleanup.callback(embedded[-1].stop)
    if settings.broker_url is None:
        embedded.append(Valkey(home))
        cleanup.callback(embedded[-1].stop)
    return embedded


def _restart_if_dead(store: Embedded, console: Console) -> bool:
    """Whether it had ended and was started again."""
    try:
        restarted = store.ensure_running()
    except ServiceDidNotStart as error:
        console.print(f"{error} Trying again.", markup=False)
        return False
    if restarted:
        console.print(f"{store.name} had ended and was started again.")
    return restarted


def _environment(settings: Settings, home: Path, embedded: list[Embedded]) -> dict[str, str]:
    """Of our services, which run in another directory: paths are absolute, URLs those of what runs."""
    urls = {store.name: store.url for store in embedded}
    return {
        **os.environ,
        **without_rates(settings),
        "PAIRTUNE_API_PROCESSES": str(settings.api_processes),
        "PAIRTUNE_HOME": str(home),
        "PAIRTUNE_BASES_FILE": str(settings.bases_file.resolve()),
        "PAIRTUNE_DATABASE_URL": settings.database_url or urls[Postgres.name],
        "PAIRTUNE_BROKER_URL": settings.broker_url or urls[Valkey.name],
    }


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(f"pairtune is already up in {home}; set PAIRTUNE_HOME for a second one.") from error
        yield


def _check_port_is_free(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise StackError(f"Port {settings.port} on {settings.host} is taken; set PAIRTUNE_PORT.") from error


def _check_services(settings: Settings) -> None:
    """The broker and the object store that the settings name; PostgreSQL is checked by its migration."""
    problem = broker_problem(settings.broker_url) if settings.broker_url is not None else None
    if problem is not None:
        found, cure = problem
        raise StackError(f"PAIRTUNE_BROKER_URL: {found}. {cure}")
    if not settings.effective_blob_url.startswith("file://"):
        stored = storage(settings)
        if stored.state == "error":
            raise StackError(f"PAIRTUNE_BLOB_URL: {stored.found}. {stored.cure}")


def _upgrade(database_url: str) -> None:
    try:
        upgrade(database_url)
    except DatabaseTooNew as error:
        raise StackError(str(error)) from error
    except SQLAlchemyError as error:
        reason = unusable(error)
        if reason is None:
            raise
        raise StackError(f"PAIRTUNE_DATABASE_URL: {reason}") from error


def _becomes_ready(settings: Settings, stop: threading.Event) -> bool:
    url = f"http://{settings.host}:{settings.port}/readyz"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not stop.wait(0.1):
        try:
            if httpx.get(url, timeout=5).is_success:
                return True
        except httpx.TransportError:
            continue
    if stop.is_set():
        return False
    raise StackError(f"{url} did not answer within {READY_SECONDS} s; see the logs.")
