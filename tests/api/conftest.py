"""An API in this process for most tests, and one in a process of its own for what only a real socket shows."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from store import files, leases
from store.database import Sessions, open_engine, open_sessions
from store.files import NewFile
from store.models import File
from store.settings import REPOSITORY, Settings
from tests import servers
from tests.api.polling import until
from tests.conftest import Tenant, make_tenant

MAX_UPLOAD = 300_000
LISTENING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
BASES = '[[base]]\nname = "tiny"\nfamily = "sdxl"\nsource = "./tiny"\n'

_tenants = itertools.count(1)


def write_bases(home: Path) -> Path:
    (home / "tiny").mkdir()
    path = home / "bases.toml"
    path.write_text(BASES)
    return path


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> Iterator[str]:
    """One database for all of these tests: each has a project of its own, which is isolation enough."""
    with servers.database(postgres_url, "api") as url:
        yield url


@pytest.fixture(scope="session")
def sessions(database_url: str) -> Iterator[Sessions]:
    engine = open_engine(database_url)
    yield open_sessions(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, database_url: str, valkey_url: str) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(
        home=home,
        database_url=database_url,
        broker_url=valkey_url,
        bases_file=write_bases(home),
        max_upload_bytes=MAX_UPLOAD,
    )


@pytest.fixture
def project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, f"project {next(_tenants)}")


@pytest.fixture
def other_project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, f"project {next(_tenants)}")


def open_client(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), raise_server_exceptions=False)


@pytest.fixture(scope="session")
def _client(settings: Settings) -> Iterator[TestClient]:
    with open_client(settings) as client:
        yield client


@pytest.fixture
def anonymous(_client: TestClient, broker_url: str) -> TestClient:
    """A client without a key, and an empty broker."""
    _client.headers.pop("authorization", None)
    return _client


@pytest.fixture
def client(anonymous: TestClient, api_key: str) -> TestClient:
    anonymous.headers["authorization"] = f"Bearer {api_key}"
    return anonymous


def add_file(sessions: Sessions, project_id: str, *, status: str = "processed", purpose: str = "fine-tune") -> File:
    """A file as intake leaves it; the bytes are of no matter here."""
    new = NewFile(project_id, "pairs.zip", purpose, 3, "0" * 64)
    with sessions.begin() as session:
        return files.create(session, new, status=status)


@pytest.fixture
def file_id(sessions: Sessions, project: Tenant) -> str:
    return add_file(sessions, project.id).id


def finish_intake(sessions: Sessions, file_id: str, *, status: str, details: str | None) -> None:
    with sessions.begin() as session:
        owned = leases.claim_file(session, file_id, lease_seconds=60)
        assert owned is not None
        leases.finish_file(session, owned, status=status, details=details)


@dataclass(frozen=True)
class Live:
    """A real uvicorn. ``log`` is what it wrote to stderr."""

    url: str
    port: int
    home: Path
    tenant: Tenant
    sessions: Sessions
    log: Path


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("live")
    log = home / "log"
    with servers.database(postgres_url, "live") as database_url:
        engine = open_engine(database_url)
        sessions = open_sessions(engine)
        tenant = make_tenant(sessions, "live")
        process = _uvicorn(home, database_url, valkey_url, log)
        try:
            port = _port(log)
            yield Live(f"http://127.0.0.1:{port}", port, home, tenant, sessions, log)
        finally:
            process.terminate()
            process.wait(timeout=20)
            engine.dispose()


def _uvicorn(home: Path, database_url: str, broker_url: str, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PAIRTUNE_HOME": str(home),
        "PAIRTUNE_DATABASE_URL": database_url,
        "PAIRTUNE_BROKER_URL": broker_url,
        "PAIRTUNE_BASES_FILE": str(write_bases(home)),
        "PAIRTUNE_MAX_UPLOAD_BYTES": str(MAX_UPLOAD),
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--no-access-log", "--port", "0"]
    with log.open("wb") as stderr:
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=stderr)


def _port(log: Path) -> int:
    """The port that the system gave to uvicorn, which says it once it listens."""
    until(lambda: LISTENING.search(log.read_text()) is not None, seconds=60)
    match = LISTENING.search(log.read_text())
    assert match is not None
    return int(match.group(1))
