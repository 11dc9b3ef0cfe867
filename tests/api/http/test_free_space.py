"""With little room left nothing new is begun, and all that was there can be read, ended and deleted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from store.settings import Settings
from tests.api.conftest import open_client
from tests.api.job_steps import JOBS, create
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
BEGUN = {"filename": "a.zip", "bytes": 3, "mime_type": "application/zip", "purpose": "fine-tune"}


@pytest.fixture
def cramped(settings: Settings, project: Tenant, broker_url: str) -> Iterator[TestClient]:
    with open_client(settings.model_copy(update={"min_free_bytes": 2**60})) as client:
        client.headers["authorization"] = f"Bearer {project.api_key}"
        yield client


def test_new_uploads_parts_pairs_and_jobs_are_507(client: TestClient, cramped: TestClient, file_id: str) -> None:
    upload = client.post("/v1/uploads", json=BEGUN).json()["id"]
    dataset = client.post("/v1/datasets", json={"name": "a"}).json()["id"]
    before = client.get("/v1/files").json()
    for answer in (
        cramped.post("/v1/files", files={"file": ("a.zip", b"abc")}, data={"purpose": "fine-tune"}),
        cramped.post("/v1/uploads", json=BEGUN),
        cramped.post(f"/v1/uploads/{upload}/parts", files={"data": b"abc"}),
        cramped.post(f"/v1/datasets/{dataset}/pairs", data={"prompt": "a"}, files={"chosen": ("a.png", b"")}),
        cramped.post(JOBS, json={"model": "tiny", "training_file": file_id}),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (507, "insufficient_storage", "server_error")
        assert answer.headers["x-should-retry"] == "false"
        assert "for lack of disk space" in error["message"]
    assert client.get("/v1/files").json() == before
    assert client.get(f"/v1/uploads/{upload}/parts").json()["data"] == []


def test_what_is_there_can_be_read_ended_and_deleted(client: TestClient, cramped: TestClient) -> None:
    sent = client.post("/v1/files", files={"file": ("a.zip", b"abc")}, data={"purpose": "fine-tune"}).json()
    upload = client.post("/v1/uploads", json=BEGUN).json()["id"]
    part = client.post(f"/v1/uploads/{upload}/parts", files={"data": b"abc"}).json()["id"]
    job = create(client, sent["id"])["id"]
    assert cramped.get(f"/v1/files/{sent['id']}/content").content == b"abc"
    completed = cramped.post(f"/v1/uploads/{upload}/complete", json={"part_ids": [part]}).json()
    assert completed["status"] == "completed"
    assert cramped.post(f"{JOBS}/{job}/cancel").json()["status"] == "cancelled"
    assert cramped.delete(f"/v1/files/{sent['id']}").json()["deleted"]
