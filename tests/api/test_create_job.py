"""Creating fine-tuning jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from store import files, jobs, leases
from store.database import Sessions
from store.jobs import NewJob
from store.models import Job
from store.settings import Settings
from tests import servers
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS, create
from tests.api.polling import until
from tests.conftest import Tenant
from trainer.spec.run import RunSpec

pytestmark = pytest.mark.integration


def refused(client: TestClient, document: Any) -> dict[str, str]:
    answer = client.post(JOBS, json=document)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == error["errors"][0]["param"]
    assert all(fault["message"] in error["message"] for fault in error["errors"])
    return {fault["param"]: fault["message"] for fault in error["errors"]}


def test_a_job_echoes_its_request_and_fills_openais_shape(client: TestClient, file_id: str, project: Tenant) -> None:
    method = {"type": "mapo", "mapo": {"hyperparameters": {"beta": 64, "max_steps": 10}}}
    job = create(client, file_id, method=method, suffix="line art", seed=7, metadata={"team": "a"}, adapter={"rank": 4})
    expected: dict[str, Any] = {
        "object": "fine_tuning.job",
        "status": "queued",
        "model": "tiny",
        "training_file": file_id,
        "validation_file": None,
        "organization_id": project.id,
        "seed": 7,
        "suffix": "line art",
        "metadata": {"team": "a"},
        "error": None,
        "fine_tuned_model": None,
        "finished_at": None,
        "estimated_finish": None,
        "trained_tokens": None,
        "result_files": [],
        "integrations": [],
        "progress": None,
        "attempt": 0,
        "requested": None,
        "adapter": {"rank": 4, "alpha": None},
    }
    assert {name: job[name] for name in expected} == expected
    assert job["hyperparameters"]["beta"] == 64
    assert job["hyperparameters"]["learning_rate"] == "auto"
    assert job["method"]["mapo"]["hyperparameters"] == job["hyperparameters"]
    assert client.get(f"{JOBS}/{job['id']}").json() == job


def test_only_model_and_training_file_are_required_and_null_means_absent(client: TestClient, file_id: str) -> None:
    names = ("validation_file", "method", "suffix", "seed", "metadata", "integrations", "adapter")
    job = create(client, file_id, **dict.fromkeys(names))
    assert (job["method"]["type"], job["seed"], job["metadata"], job["suffix"]) == ("mapo", 0, None, None)
    assert create(client, file_id, integrations=[])["integrations"] == []


def test_the_row_holds_a_run_specification_with_the_pinned_base(
    client: TestClient, file_id: str, sessions: Sessions, settings: Settings
) -> None:
    job = create(client, file_id, seed=3)
    with sessions() as session:
        spec = RunSpec.model_validate(session.get_one(Job, job["id"]).spec)
    assert (spec.seed, spec.base.name, spec.base.family) == (3, "tiny", "sdxl")
    assert spec.base.source == str(settings.home / "tiny")


def test_a_ready_job_is_announced_and_one_with_an_unread_file_waits(
    client: TestClient, sessions: Sessions, settings: Settings, project: Tenant, file_id: str
) -> None:
    unread = add_file(sessions, project.id, status="uploaded").id
    assert create(client, file_id, validation_file=unread)["status"] == "validating_files"
    with servers.broker_client(settings.required_broker_url) as broker:
        assert broker.llen("train") == 0
        assert create(client, file_id)["status"] == "queued"
        assert broker.llen("train") == 1


def test_faults_of_form_and_of_references_come_together(client: TestClient, sessions: Sessions) -> None:
    found = refused(
        client,
        {
            "model": "nope",
            "training_file": "file-nope",
            "seed": -1,
            "suffix": "",
            "colour": "red",
            "integrations": [{"type": "wandb"}],
            "metadata": {"k": "v" * 513},
            "adapter": {"rank": 0},
            "method": {"type": "mapo", "mapo": {"hyperparameters": {"beta": -1, "lr": 0.1, "n_epochs": "many"}}},
        },
    )
    hyperparameters = "method.mapo.hyperparameters"
    assert set(found) == {
        "model",
        "training_file",
        "seed",
        "suffix",
        "colour",
        "integrations",
        "metadata.k",
        "adapter.rank",
        f"{hyperparameters}.beta",
        f"{hyperparameters}.lr",
        f"{hyperparameters}.n_epochs",
    }
    assert found["model"] == "model: No such model: 'nope'. Base models here: tiny."
    beta = found[f"{hyperparameters}.beta"]
    assert beta == f"{hyperparameters}.beta: should be greater than 0 or should be 'auto' (given: -1)."
    assert "learning_rate" in found[f"{hyperparameters}.lr"]
    assert "adapter" in found["colour"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"training_file": None}, "training_file"),
        ({"validation_file": "file-nope"}, "validation_file"),
        ({"method": {"type": "ppo"}}, "method.type"),
        ({"method": {}}, "method.type"),
        ({"method": {"type": "mapo", "mapo": {"hyperparameters": {"max_steps": 1, "n_epochs": 1}}}}, None),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 65}"),
        ({"suffix": "s" * 65}, "suffix"),
        ({"suffix": "a\nb"}, "suffix"),
        ({"seed": 2**31}, "seed"),
        ({"seed": True}, "seed"),
        ({"adapter": {"rank": "16"}}, "adapter.rank"),
        ({"dry_run": True}, "dry_run"),
    ],
)
def test_each_fault_is_named_by_its_field(
    client: TestClient, file_id: str, change: dict[str, Any], param: str | None
) -> None:
    found = refused(client, {"model": "tiny", "training_file": file_id} | change)
    assert set(found) == {param or "method.mapo.hyperparameters"}


def test_an_unknown_model_has_openais_code(client: TestClient, file_id: str) -> None:
    error = client.post(JOBS, json={"model": "gpt", "training_file": file_id}).json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_refused_or_produced_file_cannot_be_trained_on(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    broken = add_file(sessions, project.id, status="error").id
    product = add_file(sessions, project.id, purpose="fine-tune-results").id
    found = refused(client, {"model": "tiny", "training_file": broken, "validation_file": product})
    assert "cannot be used" in found["training_file"]
    assert "purpose 'fine-tune-results'" in found["validation_file"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b'{"model": "\\u0000"}', b'{"seed": NaN}', b"[" * 100_000, b'{"a": "\xff"}']
)
def test_a_body_that_is_no_json_object_is_a_plain_400(client: TestClient, body: bytes) -> None:
    answer = client.post(JOBS, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_job_created_while_intake_finishes_its_file_is_not_forgotten(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    file = add_file(sessions, project.id, status="uploaded")
    with sessions.begin() as session:
        reading = leases.claim_file(session, file.id, lease_seconds=60)
    assert reading is not None

    def finish() -> list[str]:
        with sessions.begin() as session:
            leases.finish_file(session, reading, status="processed", details=None)
            return jobs.files_ready(session, file.id)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            held = files.get_for_job(session, project.id, file.id)
            finished = pool.submit(finish)
            until(lambda: finished.done() or _blocked(sessions))
            job = jobs.create(session, NewJob(project.id, {}, held, None, None, None))
        assert finished.result(timeout=10) == [job.id]


def _blocked(sessions: Sessions) -> bool:
    with sessions() as session:
        query = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)")
        return bool(session.execute(query).scalar_one())
