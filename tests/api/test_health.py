"""Readiness names what is missing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.health import service
from store.blobs.blobs import Blobs
from store.database import open_engine
from store.settings import Settings
from tests import servers
from tests.api.conftest import open_client

pytestmark = pytest.mark.integration


def test_alive_and_ready_need_no_key(anonymous: TestClient) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    ready = anonymous.get("/readyz")
    checks = {"database": "ok", "broker": "ok", "blobs": "ok", "disk": "ok"}
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "checks": checks})


def test_without_a_database_or_a_blob_store_it_is_not_ready_and_says_which(settings: Settings, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    gone = {"database_url": f"postgresql+psycopg://u@/none?host={tmp_path}", "blob_url": blobs.as_uri()}
    with open_client(settings.model_copy(update=gone)) as client:
        blobs.rmdir()
        ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"database": "no answer", "broker": "ok", "blobs": "no answer", "disk": "ok"}
    assert ready.json()["error"]["message"] == "No answer from: database, blobs."


def test_a_database_that_lacks_a_migration_is_not_ready_and_a_newer_versions_is(
    settings: Settings, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(service, "NOT_READY_SECONDS", 0.0)
    with (
        servers.database(postgres_url, "revisions") as url,
        open_client(settings.model_copy(update={"database_url": url})) as client,
    ):
        assert client.get("/readyz").status_code == 200
        at_revision(url, "UPDATE alembic_version SET version_num = '0010'")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "outdated")
        assert (
            ready.json()["error"]["message"]
            == "The database lacks migrations of this version: run `python -m migrations`."
        )
        at_revision(url, "UPDATE alembic_version SET version_num = 'of-the-next-version'")
        assert client.get("/readyz").json()["checks"]["database"] == "ok"
        at_revision(url, "DROP TABLE alembic_version")
        assert client.get("/readyz").json()["checks"]["database"] == "outdated"


def at_revision(url: str, statement: str) -> None:
    engine = open_engine(url, pool_size=1)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_without_a_broker_or_with_little_disk_space_it_is_ready_and_degraded(
    settings: Settings, tmp_path: Path
) -> None:
    """Jobs are accepted without a broker, and downloads go on with a full disk: no reason to take the API away."""
    for update, checks in (
        ({"broker_url": f"redis+socket://{tmp_path}/gone.sock"}, {"broker": "no answer"}),
        ({"min_free_bytes": 2**60}, {"disk": "low"}),
    ):
        with open_client(settings.model_copy(update=update)) as client:
            ready = client.get("/readyz")
        assert ready.status_code == 200
        well = {"database": "ok", "broker": "ok", "blobs": "ok", "disk": "ok"}
        assert ready.json() == {"status": "degraded", "checks": well | checks}


def test_whoever_asks_and_however_often_the_blob_store_is_written_once_in_five_seconds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    reachable = Blobs.reachable

    def counted(blobs: Blobs) -> bool:
        nonlocal asked
        asked += 1
        return reachable(blobs)

    monkeypatch.setattr(Blobs, "reachable", counted)
    with open_client(settings) as client, ThreadPoolExecutor(10) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: client.get("/readyz").status_code, range(100)))
        seconds = time.monotonic() - began
    assert set(answers) == {200}
    assert 1 <= asked <= 1 + seconds / service.KNOWN_SECONDS


def test_a_blob_store_is_ready_when_it_can_be_written(tmp_path: Path) -> None:
    """A full one counts as ready: what it holds can be downloaded."""
    blobs = Blobs((tmp_path / "blobs").as_uri())
    assert blobs.reachable()
    assert list((tmp_path / "blobs").iterdir()) == []
    (tmp_path / "blobs").rmdir()
    (tmp_path / "blobs").write_text("a file in its place")
    assert not blobs.reachable()
