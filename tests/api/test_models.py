"""Models: the operator's bases and the project's own."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from store import leases
from store.database import Sessions
from tests.api.conftest import add_file
from tests.conftest import Tenant

pytestmark = pytest.mark.integration


def test_bases_and_fine_tuned_models_are_listed_and_found(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    file = add_file(sessions, project.id)
    request = {"model": "tiny", "training_file": file.id, "suffix": "my/suffix 1"}
    job = client.post("/v1/fine_tuning/jobs", json=request).json()["id"]
    with sessions.begin() as session:
        owned = leases.claim(session, job, worker="w", lease_seconds=60)
        assert owned is not None
        leases.succeed(session, owned, results=[])
    base, tuned = client.get("/v1/models").json()["data"]
    assert base == {"id": "tiny", "object": "model", "created": 0, "owned_by": "system"}
    assert tuned["id"] == f"ft:tiny:my/suffix 1:{job.removeprefix('ftjob-')}"
    assert tuned["owned_by"] == project.id
    assert client.get("/v1/models/tiny").json() == base
    assert client.get(f"/v1/models/{quote(tuned['id'], safe='')}").json() == tuned


def test_an_unknown_model_is_a_404_with_openais_code(client: TestClient) -> None:
    answer = client.get("/v1/models/gpt")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
