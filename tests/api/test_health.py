"""Readiness names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from store.settings import Settings
from tests.api.conftest import open_client

pytestmark = pytest.mark.integration


def test_alive_and_ready_need_no_key(anonymous: TestClient) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    ready = anonymous.get("/readyz")
    checks = {"database": "ok", "broker": "ok", "blobs": "ok"}
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "checks": checks})


def test_readiness_names_a_broker_and_a_blob_store_that_are_gone(settings: Settings, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    gone = {"broker_url": f"redis+socket://{tmp_path}/gone.sock", "blob_url": blobs.as_uri()}
    with open_client(settings.model_copy(update=gone)) as client:
        blobs.rmdir()
        ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"database": "ok", "broker": "no answer", "blobs": "no answer"}
    assert ready.json()["error"]["message"] == "No answer from: broker, blobs."
