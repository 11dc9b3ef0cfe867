"""Keys and tenants, on every route that the OpenAPI document knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from api.document import document
from api.main import create_app
from store import generation_leases, keys, leases, webhook_deliveries, webhooks
from store.blobs import Blobs
from store.database import Sessions
from store.files import NewFile
from store.models import ApiKey
from store.settings import Settings
from tests.api.conftest import add_file
from tests.conftest import Tenant
from tests.store.rows import add_generation

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Operation:
    method: str
    path: str


def operations() -> Iterator[Operation]:
    for path, methods in document(create_app(Settings()))["paths"].items():
        if path.startswith("/v1"):
            yield from (Operation(method.upper(), path) for method in methods)


OPERATIONS = list(operations())
OF_ONE = [operation for operation in OPERATIONS if "{" in operation.path]


def name(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def test_the_document_knows_every_route() -> None:
    assert len(OPERATIONS) == 35
    assert len(OF_ONE) == 26


@pytest.mark.parametrize("operation", OPERATIONS, ids=name)
@pytest.mark.parametrize("authorization", [None, "Bearer pt-wrong", "Basic eDp5", "Bearer "])
def test_no_route_answers_without_a_valid_key(
    anonymous: TestClient, operation: Operation, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    answer = anonymous.request(operation.method, operation.path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    if operation.method != "HEAD":
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_an_unknown_route_under_v1_tells_nothing_without_a_key(anonymous: TestClient) -> None:
    assert anonymous.get("/v1/nothing").status_code == 401


def test_a_revoked_key_is_refused(client: TestClient, sessions: Sessions, project: Tenant) -> None:
    assert client.get("/v1/models").status_code == 200
    with sessions.begin() as session:
        key = session.query(ApiKey).filter_by(project_id=project.id).one()
        assert keys.revoke(session, key.id)
    assert client.get("/v1/models").status_code == 401


@pytest.fixture
def path_values(client: TestClient, sessions: Sessions, project: Tenant, settings: Settings) -> dict[str, str]:
    """Real ids of the first project: a file, an upload, a running job, the model that a finished job made, the
    webhook that is told of it, and an image."""
    begun = {"filename": "a", "bytes": 1, "mime_type": "application/zip", "purpose": "fine-tune"}
    upload = client.post("/v1/uploads", json=begun).json()["id"]
    file = add_file(sessions, project.id)
    made, running = (
        client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file.id}).json()["id"]
        for _ in range(2)
    )
    with sessions.begin() as session:
        events = ["fine_tuning.job.succeeded"]
        webhook = webhooks.create(session, project.id, url="https://example.com", events=events, key_check="-").id
        owned = leases.claim(session, made, worker="w", lease_seconds=60)
        assert owned is not None
        result = NewFile(project.id, "a.safetensors", "fine-tune-results", 1, "0" * 64)
        leases.succeed(session, owned, results=[result])
        [delivery] = webhook_deliveries.newest_first(session, webhook, after=None, limit=2)
    model = client.get(f"/v1/fine_tuning/jobs/{made}").json()["fine_tuned_model"]
    ids = {"file_id": file.id, "upload_id": upload, "fine_tuning_job_id": running, "model": model}
    drawn = {"generation_id": add_image(sessions, project.id, settings), "index": "0"}
    return ids | drawn | {"webhook_id": webhook, "delivery_id": delivery.id}


def add_image(sessions: Sessions, project_id: str, settings: Settings) -> str:
    generation_id = add_generation(sessions, project_id)
    blob = Blobs(settings.effective_blob_url).put_bytes(b"an image")
    with sessions.begin() as session:
        owned = generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
        assert owned is not None
        images = [{"sha256": blob.sha256, "bytes": blob.bytes}]
        generation_leases.succeed(session, owned, result={"images": images})
    return generation_id


@pytest.mark.parametrize("operation", OF_ONE, ids=name)
def test_another_projects_ids_do_not_exist(
    client: TestClient, path_values: dict[str, str], other_project: Tenant, operation: Operation
) -> None:
    path = operation.path.format(**path_values)
    theirs = {"authorization": f"Bearer {other_project.api_key}"}
    assert client.request(operation.method, path, headers=theirs).status_code == 404
    if operation.path.endswith("/events/stream"):  # which ends with the job, and a test's client reads to the end
        client.post(f"/v1/fine_tuning/jobs/{path_values['fine_tuning_job_id']}/cancel")
    # The owner gets something else, so the 404 above is not for a wrong path.
    assert client.request(operation.method, path).status_code != 404


def test_lists_and_references_show_nothing_of_another_project(
    client: TestClient, path_values: dict[str, str], other_project: Tenant
) -> None:
    theirs = {"authorization": f"Bearer {other_project.api_key}"}
    for path in ("/v1/files", "/v1/fine_tuning/jobs", "/v1/webhooks"):
        assert len(client.get(path).json()["data"]) >= 1
        assert client.get(path, headers=theirs).json()["data"] == []
    assert [model["id"] for model in client.get("/v1/models", headers=theirs).json()["data"]] == ["tiny"]
    stolen = {"model": "tiny", "training_file": path_values["file_id"]}
    answer = client.post("/v1/fine_tuning/jobs", json=stolen, headers=theirs)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_not_found")
