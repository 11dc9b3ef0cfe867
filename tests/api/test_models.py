"""Models: the operator's bases and the project's own."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from store.database import Sessions
from store.files.files import NewFile
from store.jobs import job_leases, jobs
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
        owned = job_leases.claim(session, job, worker="w", lease_seconds=60)
        assert owned is not None
        job_leases.succeed(session, owned, results=[])
    base, tuned = client.get("/v1/models").json()["data"]
    assert base == {"id": "tiny", "object": "model", "created": 0, "owned_by": "system"}
    assert tuned["id"] == f"ft:tiny:my/suffix 1:{job.removeprefix('ftjob-')}"
    assert tuned["owned_by"] == project.id
    assert client.get("/v1/models/tiny").json() == base
    assert client.get(f"/v1/models/{quote(tuned['id'], safe='')}").json() == tuned


def made(client: TestClient, sessions: Sessions, file_id: str, seed: int) -> str:
    """A model that a job made, by its name."""
    requested = {"model": "tiny", "training_file": file_id, "seed": seed}
    job: str = client.post("/v1/fine_tuning/jobs", json=requested).json()["id"]
    with sessions.begin() as session:
        owned = job_leases.claim(session, job, worker="w", lease_seconds=60)
        assert owned is not None
        job_leases.succeed(session, owned, results=[])
    name: str = client.get(f"/v1/fine_tuning/jobs/{job}").json()["fine_tuned_model"]
    return name


def test_pages_lead_from_the_bases_to_the_oldest_model_and_past_one_that_was_deleted_meanwhile(
    client: TestClient, sessions: Sessions, project: Tenant, other_project: Tenant
) -> None:
    file = add_file(sessions, project.id)
    tuned = [made(client, sessions, file.id, seed) for seed in range(3)][::-1]

    def page(**requested: str | int) -> tuple[list[str], bool]:
        answer = client.get("/v1/models", params=requested).json()
        return [one["id"] for one in answer["data"]], answer["has_more"]

    assert page() == (["tiny", *tuned], False)
    assert page(limit=1) == (["tiny"], True)
    assert page(limit=2) == (["tiny", tuned[0]], True)
    assert page(limit=2, after="tiny") == (tuned[:2], True)
    assert page(limit=3, after="tiny") == (tuned, False)
    client.delete(f"/v1/models/{quote(tuned[1], safe='')}")
    assert page(limit=2, after=tuned[1]) == (tuned[2:], False)
    assert page(after=tuned[2]) == ([], False)
    theirs = {"authorization": f"Bearer {other_project.api_key}"}
    foreign = client.get("/v1/models", params={"after": tuned[0]}, headers=theirs)
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (400, "invalid_cursor")


def weights(project: Tenant, name: str) -> NewFile:
    return NewFile(project.id, name, "fine-tune-results", sha256=name, bytes=1)


def test_a_deleted_model_leaves_its_job_and_takes_its_adapter_along(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    training = add_file(sessions, project.id)
    job = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": training.id}).json()["id"]
    results = [weights(project, "pytorch_lora_weights.safetensors"), weights(project, "README.md")]
    with sessions.begin() as session:
        owned = job_leases.claim(session, job, worker="w", lease_seconds=60)
        assert owned is not None
        job_leases.add_checkpoint(session, owned, step=3, metrics={}, manifest={"a": {"sha256": "a", "bytes": 1}})
        job_leases.succeed(session, owned, results=results)
    name = client.get(f"/v1/fine_tuning/jobs/{job}").json()["fine_tuned_model"]
    path = f"/v1/models/{quote(name, safe='')}"
    assert client.delete(path).json() == {"id": name, "object": "model", "deleted": True}
    assert (client.get(path).status_code, client.delete(path).status_code) == (404, 404)
    left = client.get(f"/v1/fine_tuning/jobs/{job}").json()
    assert (left["status"], left["fine_tuned_model"], len(left["result_files"])) == ("succeeded", None, 2)
    adapter, card = (client.get(f"/v1/files/{file_id}").status_code for file_id in left["result_files"])
    assert (adapter, card) == (404, 200)
    with sessions() as session:
        assert [row.manifest for row in jobs.checkpoints(session, job, after=None, limit=9)] == [{}]
    drawn = client.post("/v1/images/generations", json={"model": f"{name}:ckpt-step-3", "prompt": "x"})
    assert drawn.json()["error"]["code"] == "model_not_found"


def test_a_base_is_the_operators(client: TestClient) -> None:
    answer = client.delete("/v1/models/tiny")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_is_base")


def test_an_unknown_model_is_a_404_with_openais_code(client: TestClient) -> None:
    answer = client.get("/v1/models/gpt")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
