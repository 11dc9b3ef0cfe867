"""Jobs on datasets: which pairs they pin, and that they keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from intake import PreparedPair
from intake.images.normalise import normalise
from intake.limits import Limits
from store.blobs.blobs import Blobs
from store.database import Sessions
from store.jobs import jobs
from store.settings import Settings
from store.tables.job import Job
from tests import servers
from tests.api.dataset_steps import DATASETS, add, create, image_file, processed_file, refused
from tests.api.job_steps import JOBS
from tests.api.job_steps import create as create_job
from tests.conftest import Tenant
from trainer.spec.manifest import ManifestPair
from trainer.spec.run import RunSpec
from worker.training.run_directory import Inputs, assign_splits, prepare

pytestmark = pytest.mark.integration


def documents(sessions: Sessions, blobs: Blobs, job_id: str) -> list[list[dict[str, Any]] | None]:
    """The lists that the job trains on and validates with."""
    with sessions() as session:
        found = jobs.pairs_documents(session, session.get_one(Job, job_id))
    return [None if one is None else [json.loads(line) for line in blobs.read(one).splitlines()] for one in found]


def prompts(sessions: Sessions, blobs: Blobs, job_id: str) -> list[str]:
    training, _ = documents(sessions, blobs, job_id)
    return [row["prompt"] for row in training or []]


def test_a_job_pins_the_latest_revision_and_waits_for_a_worker(
    client: TestClient, sessions: Sessions, blobs: Blobs, settings: Settings
) -> None:
    dataset_id = create(client)["id"]
    gone = add(client, dataset_id, 1, 2, prompt="gone")
    fox = add(client, dataset_id, 3, 4, prompt="a fox", split="validation", weight=2, annotator="kim", seed=7)
    house = add(client, dataset_id, 5, prompt="a house")
    client.delete(f"{DATASETS}/{dataset_id}/pairs/{gone['id']}")
    job = create_job(client, dataset_id)
    assert (job["status"], job["training_file"], job["validation_file"]) == ("queued", f"{dataset_id}@5", None)
    assert client.get(f"{JOBS}/{job['id']}").json() == job
    with servers.broker_client(settings.required_broker_url) as broker:
        assert broker.llen("train") == 1
    training, validation = documents(sessions, blobs, job["id"])
    assert validation is None
    assert training == [
        {
            "row": 2,
            "prompt": "a fox",
            "chosen": fox["chosen_sha256"],
            "rejected": fox["rejected_sha256"],
            "split": "validation",
            "weight": 2.0,
            "annotator": "kim",
            "seed": 7,
        },
        {
            "row": 3,
            "prompt": "a house",
            "chosen": house["chosen_sha256"],
            "rejected": None,
            "split": None,
            "weight": None,
            "annotator": None,
            "seed": None,
        },
    ]


def test_a_job_can_be_repeated_from_what_it_says_of_itself_whatever_became_of_the_data_set(
    client: TestClient, sessions: Sessions, blobs: Blobs
) -> None:
    dataset_id = create(client)["id"]
    first = add(client, dataset_id, 1, prompt="first")
    before = create_job(client, dataset_id)
    add(client, dataset_id, 2, prompt="second")
    client.delete(f"{DATASETS}/{dataset_id}/pairs/{first['id']}")
    repeated, latest = create_job(client, before["training_file"]), create_job(client, dataset_id)
    assert (repeated["training_file"], latest["training_file"]) == (f"{dataset_id}@2", f"{dataset_id}@4")
    assert prompts(sessions, blobs, repeated["id"]) == prompts(sessions, blobs, before["id"]) == ["first"]
    assert prompts(sessions, blobs, latest["id"]) == ["second"]
    client.delete(f"{DATASETS}/{dataset_id}")
    assert client.get(f"{JOBS}/{before['id']}").json()["training_file"] == f"{dataset_id}@2"
    assert prompts(sessions, blobs, before["id"]) == ["first"]


def test_a_list_that_storage_lost_is_made_again(client: TestClient, sessions: Sessions, blobs: Blobs) -> None:
    dataset_id = create(client)["id"]
    add(client, dataset_id, 1, prompt="first")
    job = create_job(client, dataset_id)
    with sessions() as session:
        digest, _ = jobs.pairs_documents(session, session.get_one(Job, job["id"]))
    assert digest is not None
    blobs.store.delete(f"sha256/{digest[:2]}/{digest}")
    create_job(client, dataset_id)
    assert prompts(sessions, blobs, job["id"]) == ["first"]


def test_the_worker_makes_its_manifest_of_both_kinds_of_data(
    client: TestClient, sessions: Sessions, blobs: Blobs, project: Tenant
) -> None:
    training, validation = create(client)["id"], create(client)["id"]
    add(client, training, 1, 2, prompt="a fox")
    gone = add(client, validation, 3, 4, prompt="gone")
    add(client, validation, 5, 6, prompt="a house")
    client.delete(f"{DATASETS}/{validation}/pairs/{gone['id']}")
    job = create_job(client, training, validation_file=validation)
    assert job["validation_file"] == f"{validation}@4"
    assert manifest(sessions, blobs, job["id"]) == [("t1", "a fox", "train"), ("v2", "a house", "validation")]
    file_id = processed_file(sessions, blobs, project.id, PreparedPair(9, "a tree", "a" * 64, None))
    mixed = create_job(client, file_id, validation_file=f"{validation}@3")
    assert (mixed["training_file"], mixed["validation_file"]) == (file_id, f"{validation}@3")
    held_out = [("v1", "gone", "validation"), ("v2", "a house", "validation")]
    assert manifest(sessions, blobs, mixed["id"]) == [("t9", "a tree", "train"), *held_out]


def test_a_pair_sent_to_a_data_set_reaches_the_run_directory_with_its_sides(
    client: TestClient, sessions: Sessions, blobs: Blobs, tmp_path: Path
) -> None:
    dataset_id = create(client)["id"]
    add(client, dataset_id, 1, 2, prompt="a fox")
    add(client, dataset_id, 2, 1, prompt="the opposite")
    job_id = create_job(client, dataset_id)["id"]
    prepare(tmp_path / "run", inputs_of(sessions, job_id), blobs, lambda: None)
    data = tmp_path / "run" / "data"
    pairs = [ManifestPair.model_validate_json(line) for line in (data / "manifest.jsonl").read_bytes().splitlines()]
    sent = [normalise(image_file(seed), Limits()).data for seed in (1, 2)]
    found = [[(data / str(path)).read_bytes() for path in (pair.chosen, pair.rejected)] for pair in pairs]
    assert found == [sent, sent[::-1]]


def manifest(sessions: Sessions, blobs: Blobs, job_id: str) -> list[tuple[str, str, str]]:
    return [(pair.id, pair.prompt, pair.split) for pair in assign_splits(inputs_of(sessions, job_id), blobs)]


def inputs_of(sessions: Sessions, job_id: str) -> Inputs:
    with sessions() as session:
        job = session.get_one(Job, job_id)
        training, validation = jobs.pairs_documents(session, job)
    assert training is not None
    return Inputs(RunSpec.model_validate(job.spec), training, validation, None, {})


def test_a_data_set_that_cannot_be_trained_on_is_refused_with_the_reason(client: TestClient) -> None:
    empty, deleted, good = (create(client)["id"] for _ in range(3))
    add(client, good, 1)
    client.delete(f"{DATASETS}/{deleted}")

    def code(name: str, param: str = "training_file") -> dict[str | None, str]:
        named = {"training_file": good} | {param: name}
        return refused(client.post(JOBS, json={"model": "tiny"} | named))

    for param in ("training_file", "validation_file"):
        assert code(empty, param) == {param: "dataset_empty"}
        assert code(f"{good}@1", param) == {param: "dataset_empty"}
        assert code(f"{good}@3", param) == {param: "revision_not_found"}
        assert code(deleted, param) == {param: "dataset_not_found"}
    for name in ("ds-none", f"{good}@", f"{good}@two", f"{good}@2@2", f"{good}@-1", f"{good}@{2**80}"):
        assert code(name)["training_file"] in ("dataset_not_found", "revision_not_found", "file_not_found")
    message = client.post(JOBS, json={"model": "tiny", "training_file": empty}).json()["error"]["message"]
    assert message == f"training_file: {empty}@1 has no pairs; add some to the dataset, or name a revision that has."
