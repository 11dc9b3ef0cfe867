"""Creating fine-tuning jobs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.errors.errors import InvalidRequest
from api.fine_tuning import service
from api.fine_tuning.run_spec import Offer
from api.http.json_body import JsonBody
from api.http.transactions import UnitOfWork
from store.base_models import RegisteredBase, read_bases
from store.blobs.blobs import Blobs
from store.database import Sessions
from store.files import file_leases, files
from store.jobs import jobs
from store.jobs.jobs import NewJob
from store.settings import Settings
from store.tables.job import Job
from store.tenants import api_keys
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
    assert all(field_error["message"] in error["message"] for field_error in error["errors"])
    return {field_error["param"]: field_error["message"] for field_error in error["errors"]}


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
        "adapter": {
            "type": "lora",
            "rank": 4,
            "alpha": None,
            "dropout": 0.0,
            "target_modules": "auto",
            "text_encoder": None,
            "token": None,
        },
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


METHODS: dict[str, dict[str, Any]] = {
    "mapo": {"form": "paper", "preset": "style"},
    "dpo": {"beta": 2000},
    "sft": {"n_epochs": 3},
    "dco": {"beta": 500},
    "dreambooth": {"instance_prompt": "a photo of sks dog", "class_prompt": "a photo of a dog"},
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_taken_and_echoed_with_its_own_hyperparameters(
    client: TestClient, file_id: str, method: str
) -> None:
    given = METHODS[method]
    job = create(client, file_id, method={"type": method, method: {"hyperparameters": given}})
    assert job["method"].keys() == {"type", method}
    assert job["hyperparameters"].items() >= given.items()
    assert job["hyperparameters"]["learning_rate"] == "auto"


def test_every_option_of_a_run_is_taken_and_echoed(client: TestClient, file_id: str, sessions: Sessions) -> None:
    options: dict[str, dict[str, Any]] = {
        "adapter": {"type": "dora", "target_modules": ["to_q"], "token": {"text": "<toy>", "initial": "toy"}},
        "data": {"resolution": 512, "horizontal_flip": True, "caption_templates": ["{prompt}", "art, {prompt}"]},
        "validation": {"share": 0.2, "patience": 3},
        "checkpoints": {"every_steps": 50},
        "sampling": {"prompts": ["a fox"], "every_steps": 25, "guidance": 5.0},
        "mismatch": {"samples": 8},
        "compute": {"pairs": "streamed", "base_precision": "bf16"},
    }
    job = create(client, file_id, **options)
    assert {name: job[name].items() >= given.items() for name, given in options.items() if name != "adapter"} == (
        dict.fromkeys(options.keys() - {"adapter"}, True)
    )
    assert job["adapter"]["token"] == {"text": "<toy>", "initial": "toy", "vectors": 1, "learning_rate": "auto"}
    with sessions() as session:
        spec = RunSpec.model_validate(session.get_one(Job, job["id"]).spec)
    assert (spec.sampling.prompts, spec.compute.pairs, spec.data.resolution) == (("a fox",), "streamed", 512)


def test_a_job_of_a_version_that_knew_fewer_options_can_still_be_read(
    client: TestClient, file_id: str, sessions: Sessions
) -> None:
    job = create(client, file_id)
    with sessions.begin() as session:
        row = session.get_one(Job, job["id"])
        row.spec = {name: value for name, value in row.spec.items() if name not in ("sampling", "compute")}
    assert client.get(f"{JOBS}/{job['id']}").json() == job | {"sampling": {}, "compute": {}}


@pytest.mark.parametrize(
    ("suffix", "name"), [("Line Art", "Line-Art"), (None, "dpo-"), ("pytorch_lora_weights", "dpo-")]
)
def test_the_adapters_file_is_named_by_the_suffix_or_by_method_and_job(
    client: TestClient, file_id: str, sessions: Sessions, suffix: str | None, name: str
) -> None:
    job = create(client, file_id, method={"type": "dpo"}, suffix=suffix)
    with sessions() as session:
        spec = RunSpec.model_validate(session.get_one(Job, job["id"]).spec)
    assert spec.name == (name + job["id"][-8:] if name.endswith("-") else name)


def test_the_operators_dinov2_reaches_the_run_and_no_client(
    client: TestClient, file_id: str, sessions: Sessions, settings: Settings, blobs: Blobs
) -> None:
    body = JsonBody.parse(json.dumps({"model": "tiny", "training_file": file_id}).encode())
    with sessions() as session:
        key = str(client.headers["authorization"]).removeprefix("Bearer ")
        caller = api_keys.authenticate(session, key)
        offer = Offer(read_bases(settings.bases_file), dinov2=settings.home / "dinov2")
        job = service.create(UnitOfWork(session), offer, blobs, caller, service.Sent.of(body), is_retry=False)
        spec = session.get_one(Job, job.id).spec
    assert spec["dinov2"] == str(settings.home / "dinov2")
    assert "dinov2" not in job.model_dump_json()


def test_what_the_named_base_cannot_do_is_refused_at_once(
    client: TestClient, file_id: str, sessions: Sessions, blobs: Blobs
) -> None:
    options = {"adapter": {"text_encoder": {}, "token": {"text": "<toy>", "initial": "toy"}}}
    body = JsonBody.parse(json.dumps({"model": "sd3", "training_file": file_id, **options}).encode())
    offer = Offer({"sd3": RegisteredBase("sd3", "sd3", "/nowhere", None)}, dinov2=None)
    with sessions() as session:
        caller = api_keys.authenticate(session, str(client.headers["authorization"]).removeprefix("Bearer "))
        with pytest.raises(InvalidRequest) as refusal:
            service.create(UnitOfWork(session), offer, blobs, caller, service.Sent.of(body), is_retry=False)
    assert [field_error.param for field_error in refusal.value.field_errors] == [
        "adapter.text_encoder",
        "adapter.token",
    ]
    assert all(
        "should be null for a base of family sd3" in field_error.message for field_error in refusal.value.field_errors
    )
    create(client, file_id, **options)  # on SDXL


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
        job = create(client, file_id)
        assert job["status"] == "queued"
        assert broker.llen("train") == 1
    with sessions() as session:  # the dispatcher sends no second hint at once
        assert session.get_one(Job, job["id"]).published_at is not None


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
    assert found["model"] == "model: No such model: 'nope'. Available base models: tiny."
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
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}, "method.dpo.hyperparameters.beta"),
        ({"compute": {"pairs": "streamed"}, "adapter": {"dropout": 0.5}}, "compute.pairs"),
        ({"sampling": {"prompts": ["fine", ""]}}, "sampling.prompts.1"),
        ({"method": {}}, "method.type"),
        ({"method": {"type": "mapo", "mapo": {"hyperparameters": {"max_steps": 1, "n_epochs": 1}}}}, None),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 65}"),
        ({"suffix": "s" * 65}, "suffix"),
        ({"suffix": "a\nb"}, "suffix"),
        ({"seed": 2**31}, "seed"),
        ({"seed": True}, "seed"),
        ({"adapter": {"rank": "16"}}, "adapter.rank"),
        ({"dryrun": True}, "dryrun"),
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
        reading = file_leases.claim(session, file.id, lease_seconds=60)
    assert reading is not None

    def finish() -> list[str]:
        with sessions.begin() as session:
            file_leases.finish(session, reading, status="processed", details=None)
            return jobs.files_ready(session, file.id)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            held = files.get_for_job(session, project.id, file.id)
            finished = pool.submit(finish)
            until(lambda: finished.done() or _blocked(sessions))
            job = jobs.create(session, NewJob(project.id, {}, held, None))
        assert finished.result(timeout=10) == [job.id]


def _blocked(sessions: Sessions) -> bool:
    with sessions() as session:
        query = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted)")
        return bool(session.execute(query).scalar_one())
