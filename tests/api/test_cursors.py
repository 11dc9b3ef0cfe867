"""``after`` on every list: what is no object of the list is refused, and one that was deleted still has its place."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from api.main import create_app
from api.openapi.document import document
from store.database import Sessions
from store.jobs import job_leases
from store.settings import Settings
from tests.api.conftest import add_file
from tests.api.dataset_steps import DATASETS, add
from tests.api.dataset_steps import create as create_dataset
from tests.api.job_steps import claim, create
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
LISTS = sorted(
    path
    for path, methods in document(create_app(Settings()))["paths"].items()
    if any(one["name"] == "after" for one in methods.get("get", {}).get("parameters", []))
)
UPLOAD = {"filename": "a", "bytes": 5, "mime_type": "application/zip", "purpose": "fine-tune"}


class Owned:
    """A project with one object in every list that a client can fill; its ids by the parameters that take them."""

    def __init__(self, client: TestClient, sessions: Sessions, tenant: Tenant) -> None:
        self._client, self._headers = client, {"authorization": f"Bearer {tenant.api_key}"}
        client.headers.update(self._headers)
        file = add_file(sessions, tenant.id).id
        job = create(client, file)["id"]
        owned = claim(sessions, job)
        with sessions.begin() as session:
            job_leases.add_checkpoint(session, owned, step=1, metrics={}, manifest={})
        dataset = create_dataset(client)["id"]
        add(client, dataset, 1)
        upload = client.post("/v1/uploads", json=UPLOAD).json()["id"]
        client.post(f"/v1/uploads/{upload}/parts", files={"data": b"abcde"})
        self.ids = {"fine_tuning_job_id": job, "dataset_id": dataset, "upload_id": upload}

    def get(self, path: str, after: str | None = None) -> dict[str, object]:
        address = path.format_map(self.ids)
        answer = self._client.get(address, params={"after": after} if after else {}, headers=self._headers)
        found: dict[str, object] = answer.json()
        return found


@pytest.fixture
def mine(client: TestClient, sessions: Sessions, project: Tenant) -> Owned:
    return Owned(client, sessions, project)


def test_there_are_lists() -> None:
    assert len(LISTS) >= 10


@pytest.mark.parametrize("path", [path for path in LISTS if "webhook" not in path])  # those: test_webhooks.py
def test_a_cursor_that_is_of_another_list_or_of_none_is_refused(
    client: TestClient, sessions: Sessions, other_project: Tenant, mine: Owned, path: str
) -> None:
    theirs = Owned(client, sessions, other_project)
    own, foreign = (one.get(path)["data"] for one in (mine, theirs))
    assert isinstance(own, list)
    assert isinstance(foreign, list)
    if path != "/v1/models":
        assert "error" not in mine.get(path, own[-1]["id"])
        assert mine.get(path, foreign[-1]["id"])["error"]["code"] == "invalid_cursor"  # type: ignore[index]
    error = mine.get(path, "nothing")["error"]
    assert (error["code"], error["param"]) == ("invalid_cursor", "after")  # type: ignore[index]
    assert error["message"].startswith("after: 'nothing' is not in this list")  # type: ignore[index]


def test_a_client_may_delete_what_it_lists(client: TestClient, sessions: Sessions, project: Tenant) -> None:
    for _ in range(3):
        add_file(sessions, project.id)
    first = client.get("/v1/files", params={"limit": 2}).json()
    for file in first["data"]:
        client.delete(f"/v1/files/{file['id']}")
    rest = client.get("/v1/files", params={"limit": 2, "after": first["last_id"]}).json()
    assert len(rest["data"]) == 1
    dataset = create_dataset(client)["id"]
    pairs = [add(client, dataset, seed, prompt=str(seed))["id"] for seed in (1, 2)]
    client.delete(f"{DATASETS}/{dataset}/pairs/{pairs[0]}")
    left = client.get(f"{DATASETS}/{dataset}/pairs", params={"after": pairs[0]}).json()["data"]
    assert [pair["prompt"] for pair in left] == ["2"]
