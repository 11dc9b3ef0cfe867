"""The API in a process of its own, on a real socket."""

from __future__ import annotations

import itertools
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.database import Sessions, open_engine, open_sessions
from store.settings import REPOSITORY
from tests import servers
from tests.api.polling import until
from tests.conftest import Tenant, make_tenant

LISTENING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
BASES = '[[base]]\nname = "tiny"\nfamily = "sdxl"\nsource = "./tiny"\n'
MAX_UPLOAD = 300_000  # bytes

_databases = itertools.count(1)


def write_bases(home: Path) -> Path:
    (home / "tiny").mkdir(exist_ok=True)
    path = home / "bases.toml"
    path.write_text(BASES)
    return path


@dataclass(frozen=True)
class Live:
    """A real uvicorn. ``log`` is what it wrote to stderr."""

    url: str
    port: int
    pid: int
    home: Path
    tenant: Tenant
    sessions: Sessions
    log: Path


@contextmanager
def serving(
    home: Path,
    postgres_url: str,
    valkey_url: str,
    *,
    log: Path | None = None,
    limits: Mapping[int, int] | None = None,
    **options: object,
) -> Iterator[Live]:
    """uvicorn on a database of its own. ``limits``: soft resource limits of its process; ``options``: settings."""
    log = log or home / "log"
    with servers.database(postgres_url, f"live_{next(_databases)}") as database_url:
        engine = open_engine(database_url)
        sessions = open_sessions(engine)
        tenant = make_tenant(sessions, "live")
        given = {"home": home, "database_url": database_url, "broker_url": valkey_url, "requests_per_minute": "none"}
        given["anonymous_per_minute"] = "none"
        given |= options
        process = _uvicorn(given | {"bases_file": write_bases(home)}, log, limits or {})
        try:
            port = _port(log)
            until(lambda: _answers(port), seconds=60)  # several processes listen some time after they say so
            yield Live(f"http://127.0.0.1:{port}", port, process.pid, home, tenant, sessions, log)
        finally:
            process.terminate()
            process.wait(timeout=20)
            engine.dispose()


def _uvicorn(given: Mapping[str, object], log: Path, limits: Mapping[int, int]) -> subprocess.Popen[bytes]:
    environment = os.environ | {f"PAIRTUNE_{name.upper()}": str(value) for name, value in given.items()}
    command = [sys.executable, "-m", "api.server", "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=stderr)
    for limit, most in limits.items():
        resource.prlimit(process.pid, limit, (most, resource.RLIM_INFINITY))
    return process


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _port(log: Path) -> int:
    """The port that the system gave to uvicorn, which says it once it listens."""
    until(lambda: LISTENING.search(log.read_text()) is not None, seconds=60)
    match = LISTENING.search(log.read_text())
    assert match is not None
    return int(match.group(1))
