"""OpenAI's older form of a create request, and LiteLLM's fine-tuning client, which sends it.

The calls with the package itself need an environment that has it: LITELLM_PYTHON names its Python.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types.fine_tuning import FineTuningJob
from starlette.testclient import TestClient

from tests.api.job_steps import JOBS
from tests.api.serving import Live

pytestmark = pytest.mark.integration
CALLS = Path(__file__).with_name("litellm_calls.py")
# What LiteLLM 1.110.2 sends for the creates of litellm_calls.py, beside the model and the training file. extra_body
# and method are not passed on.
SENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"hyperparameters": {}}, {"n_epochs": "auto", "batch_size": "auto", "learning_rate": "auto"}),
    (
        {"hyperparameters": {"batch_size": "auto", "learning_rate_multiplier": 0.5, "n_epochs": 2}},
        {"n_epochs": 2, "batch_size": "auto", "learning_rate": 5e-5},
    ),
    ({"hyperparameters": {"preset": "style", "max_steps": 4}}, {"preset": "style", "max_steps": 4, "form": "paper"}),
    ({"hyperparameters": {}, "seed": 7, "suffix": "line-art"}, {"n_epochs": "auto"}),
]


def made(client: TestClient, file_id: str, **options: Any) -> dict[str, Any]:
    answer = client.post(JOBS, json={"model": "tiny", "training_file": file_id, **options})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


@pytest.mark.parametrize(("sent", "trained"), SENT)
def test_what_litellm_sends_makes_a_job_that_it_can_read(
    client: TestClient, file_id: str, sent: dict[str, Any], trained: dict[str, Any]
) -> None:
    """It validates each job with the openai SDK's class, which knows no method of ours."""
    job = made(client, file_id, **sent)
    assert job["hyperparameters"].items() >= trained.items()
    at = f"{JOBS}/{job['id']}"
    for shown in (job, client.get(at).json(), client.post(f"{at}/cancel").json()):
        assert shown["method"] is None
        FineTuningJob.model_validate(shown)
    listed = client.get(JOBS, params={"limit": 1}).json()["data"]
    assert [(one["id"], one["method"]) for one in listed] == [(job["id"], None)]


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"method": {"type": "dpo"}, "hyperparameters": {"n_epochs": 3}}, {"n_epochs": 3}),
        ({"method": {"type": "sft", "sft": {}}, "hyperparameters": {}}, {"n_epochs": "auto"}),
        (
            {"method": {"type": "sft", "sft": {"hyperparameters": {}}}, "hyperparameters": {"batch_size": 2}},
            {"batch_size": 2},
        ),
        (
            {
                "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "beta": 500}}},
                "hyperparameters": {"n_epochs": "auto", "learning_rate_multiplier": "auto"},
            },
            {"n_epochs": 3, "beta": 500, "learning_rate": "auto"},
        ),
        (
            {"method": {"type": "dco"}, "hyperparameters": {"n_epochs": None, "learning_rate_multiplier": 2}},
            {"n_epochs": "auto", "learning_rate": 2e-4},
        ),
    ],
)
def test_top_level_hyperparameters_are_those_of_the_method_that_is_named(
    client: TestClient, file_id: str, options: dict[str, Any], trained: dict[str, Any]
) -> None:
    job = made(client, file_id, **options)
    assert job["method"]["type"] == options["method"]["type"]
    assert job["hyperparameters"].items() >= trained.items()


def test_a_null_is_no_older_form(client: TestClient, file_id: str) -> None:
    assert made(client, file_id, hyperparameters=None)["method"]["type"] == "mapo"


@pytest.mark.slow
@pytest.mark.skipif("LITELLM_PYTHON" not in os.environ, reason="LITELLM_PYTHON names no Python that has litellm")
def test_every_call_of_litellm_works(live: Live, tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {live.tenant.api_key}"}
    uploaded = httpx.post(
        f"{live.url}/v1/files", headers=headers, data={"purpose": "fine-tune"}, files={"file": b"pairs"}
    )
    # -P: the folder of the script is none to import from; it has packages with names of the standard library's.
    command = [os.environ["LITELLM_PYTHON"], "-P", CALLS, live.url, live.tenant.api_key, uploaded.json()["id"]]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"}, check=False
    )
    assert ran.returncode == 0, ran.stderr
    answers = {line["call"]: line for line in map(json.loads, re.findall(r'^{"call".*', ran.stdout, re.M))}
    assert len(answers) == 10
    assert answers["create, our hyperparameters"]["hyperparameters"]["preset"] == "style"
    assert answers["create, openai's hyperparameters"]["hyperparameters"]["learning_rate"] == 5e-5
    assert answers["list"]["statuses"] == ["validating_files"] * 2
    assert answers["cancel"]["statuses"] == answers["acancel"]["statuses"] == ["cancelled"]
