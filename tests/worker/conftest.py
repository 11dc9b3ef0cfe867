"""A database, a broker and blobs for workers; a tiny base model; jobs on it with a real uploaded archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine

from store.blobs.blobs import Blobs
from store.database import Sessions, open_engine
from store.files import files
from store.files.files import NewFile
from store.hints import Hints
from store.settings import Settings
from store.tables.base import Json
from store.tables.file import File
from tests import servers
from tests.conftest import emptied, make_tenant
from tests.store.rows import add_job
from tests.trainer.tiny_sdxl import save_base
from tests.worker.celery_worker import StartWorker, workers
from tests.worker.pairs import archive_of
from worker.intake.file_intake import read_file
from worker.resources import Resources
from worker.training.supervisor import supervise


@pytest.fixture(scope="package")
def database_url(postgres_url: str) -> Iterator[str]:
    with servers.database(postgres_url, "worker") as url:
        yield url


@pytest.fixture(scope="package")
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    return emptied(engine)


@pytest.fixture
def project_id(sessions: Sessions) -> str:
    return make_tenant(sessions, "first").id


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        lease_seconds=5,
        heartbeat_seconds=0.2,
        dispatch_seconds=0.2,
        republish_seconds=0.5,
        grace_seconds=30,
    )


@pytest.fixture
def resources(settings: Settings, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Resources:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Resources(
        settings=settings,
        sessions=sessions,
        blobs=Blobs(settings.effective_blob_url),
        hints=Hints(settings.required_broker_url),
        worker="test",
    )


@pytest.fixture
def strict(resources: Resources) -> Resources:
    """Whose webhooks go as by default: by https and to public addresses alone."""
    return replace(resources, settings=resources.settings.model_copy(update={"webhooks_timeout_seconds": 2.0}))


@pytest.fixture
def parts(strict: Resources) -> Resources:
    """Whose webhooks may go to loopback."""
    update = {"webhooks_allow_http": True, "webhooks_allow_private": True}
    return replace(strict, settings=strict.settings.model_copy(update=update))


@pytest.fixture
def start_worker(resources: Resources, tmp_path: Path) -> Iterator[StartWorker]:
    with workers(resources.settings, tmp_path / "worker.log") as start:
        yield start


@pytest.fixture(scope="package")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="package")
def archive() -> bytes:
    return archive_of(rejected=True)


@pytest.fixture(scope="package")
def chosen_only() -> bytes:
    return archive_of(rejected=False)


def upload(resources: Resources, project_id: str, content: bytes, policy: Json | None = None) -> File:
    blob = resources.blobs.put_bytes(content)
    new = NewFile(project_id, "pairs.zip", "fine-tune", blob.bytes, blob.sha256, policy)
    with resources.sessions.begin() as session:
        return files.create(session, new, status="uploaded")


def reread(resources: Resources, file: File) -> File:
    with resources.sessions() as session:
        return session.get_one(File, file.id)


NewJob = Callable[..., str]


@pytest.fixture
def new_job(resources: Resources, project_id: str, archive: bytes, tiny_base: Path) -> NewJob:
    """A queued job of ``steps`` steps of 2 pairs, with a checkpoint every ``every`` steps.

    MaPO's preset spares the tests measuring the reference mismatch.
    """

    def create(
        *,
        steps: int = 6,
        every: int = 3,
        method: str = "mapo",
        data: bytes = archive,
        hyperparameters: dict[str, Any] | None = None,
        **options: Any,
    ) -> str:
        file = upload(resources, project_id, data)
        read_file(resources, file.id)
        own = {"preset": "style"} if method == "mapo" else {}
        requested = {"max_steps": steps, "batch_size": 2} | (own if hyperparameters is None else hyperparameters)
        spec = {
            "base": {"name": "tiny", "family": "sdxl", "source": str(tiny_base)},
            "method": {"type": method, method: {"hyperparameters": requested}},
            "adapter": {"rank": 2},
            "validation": {"draws": 1},
            "sampling": {"steps": 2},
            "checkpoints": {"every_steps": every},
            "name": "line-art",
        } | options
        return add_job(resources.sessions, reread(resources, file), spec=spec)

    return create


class Supervised:
    """``supervise`` in a thread, as a pool process would run it; ``stopping`` is the worker's own end."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._pool = ThreadPoolExecutor(1)
        self.stopping = Event()

    def run(self, job_id: str) -> Future[None]:
        return self._pool.submit(supervise, self._resources, job_id, stopping=self.stopping.is_set)

    def close(self) -> None:
        self.stopping.set()
        self._pool.shutdown()


@pytest.fixture
def supervised(resources: Resources) -> Iterator[Supervised]:
    thread = Supervised(resources)
    yield thread
    thread.close()
