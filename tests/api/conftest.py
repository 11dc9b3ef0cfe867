"""An API in this process for most tests, and one in a process of its own for what only a real socket shows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from api.main import create_app
from store.blobs.blobs import Blobs
from store.database import Sessions, open_engine, open_sessions
from store.files import file_leases, files
from store.files.files import NewFile
from store.hints import Hints
from store.settings import Settings
from store.tables.file import File
from tests import servers
from tests.api.serving import MAX_UPLOAD, Live, serving, write_bases
from tests.conftest import Tenant, make_tenant
from worker.intake.file_intake import read_file
from worker.resources import Resources

_tenants = itertools.count(1)


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
        requests_per_minute=None,
        anonymous_per_minute=None,
    )


@pytest.fixture
def project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, f"project {next(_tenants)}")


@pytest.fixture
def other_project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, f"project {next(_tenants)}")


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    """Those of the API in this process."""
    return Blobs(settings.effective_blob_url)


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
        owned = file_leases.claim(session, file_id, lease_seconds=60)
        assert owned is not None
        file_leases.finish(session, owned, status=status, details=details)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("live"), postgres_url, valkey_url, max_upload_bytes=MAX_UPLOAD) as server:
        yield server


@pytest.fixture
def reading(live: Live, valkey_url: str) -> Iterator[None]:
    """What an intake worker does, for every file that comes."""
    settings = Settings(home=live.home, broker_url=valkey_url)
    resources = Resources(settings, live.sessions, Blobs(settings.effective_blob_url), Hints(valkey_url), "w")
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.05):
            with live.sessions() as session:
                waiting = list(session.scalars(select(File.id).where(File.status == "uploaded")))
            for file_id in waiting:
                read_file(resources, file_id)

    worker = threading.Thread(target=work)
    worker.start()
    yield
    ended.set()
    worker.join()
