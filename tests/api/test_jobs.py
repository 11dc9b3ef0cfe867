"""Reading and steering fine-tuning jobs."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from store.database import Sessions
from store.files.files import NewFile
from store.job_status import RequestedAction
from store.jobs import job_leases
from store.jobs.events import NewEvent
from store.settings import Settings
from tests import servers
from tests.api.job_steps import JOBS, claim, create
from tests.conftest import Tenant

pytestmark = pytest.mark.integration


def test_lists_page_newest_first_and_filter_by_metadata(client: TestClient, file_id: str) -> None:
    plain = create(client, file_id)["id"]
    tagged = create(client, file_id, metadata={"team": "a", "run": "1"})["id"]
    other = create(client, file_id, metadata={"team": "b"})["id"]

    def ids(**query: str) -> list[str]:
        return [job["id"] for job in client.get(JOBS, params=query).json()["data"]]

    assert ids() == [other, tagged, plain]
    assert ids(limit="1", after=other) == [tagged]
    assert client.get(JOBS, params={"limit": 2}).json()["has_more"] is True
    assert ids(**{"metadata[team]": "a"}) == [tagged]
    assert ids(**{"metadata[team]": "b", "metadata[run]": "1"}) == []
    assert ids(metadata="null") == [plain]
    assert client.get(JOBS, params={"metadata": "null", "metadata[a]": "b"}).status_code == 400


@pytest.mark.parametrize("query", ["metadata[]=x", "metadata[team]s=x", "metadata[team=x", "metadata=x"])
def test_a_filter_that_cannot_be_read_is_refused_not_ignored(client: TestClient, query: str) -> None:
    answer = client.get(f"{JOBS}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_a_filter_matches_one_value_of_a_key(client: TestClient) -> None:
    answer = client.get(f"{JOBS}?metadata[team]=a&metadata[team]=b")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata[team]")


def test_a_filter_finds_a_key_with_a_line_feed(client: TestClient, file_id: str) -> None:
    tagged = create(client, file_id, metadata={"a\nb": "1"})["id"]
    create(client, file_id, metadata={"a": "1"})
    assert [job["id"] for job in client.get(f"{JOBS}?metadata[a%0Ab]=1").json()["data"]] == [tagged]


def test_a_queued_job_pauses_resumes_and_cancels_at_once(client: TestClient, file_id: str, settings: Settings) -> None:
    job = create(client, file_id)["id"]
    empty = {"content-type": "application/json"}
    assert client.post(f"{JOBS}/{job}/pause", headers=empty).json()["status"] == "paused"
    assert client.post(f"{JOBS}/{job}/resume", headers=empty).json()["status"] == "queued"
    with servers.broker_client(settings.required_broker_url) as broker:
        assert broker.llen("train") == 2
    cancelled = client.post(f"{JOBS}/{job}/cancel", headers=empty).json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] >= cancelled["created_at"]
    late = client.post(f"{JOBS}/{job}/resume", headers=empty)
    assert (late.status_code, late.json()["error"]["code"]) == (409, "invalid_job_state")
    assert late.headers["x-should-retry"] == "false"


def test_a_running_job_gets_a_request_to_stop(client: TestClient, file_id: str, sessions: Sessions) -> None:
    job = create(client, file_id)["id"]
    owned = claim(sessions, job)
    paused = client.post(f"{JOBS}/{job}/pause").json()
    assert (paused["status"], paused["requested"], paused["attempt"]) == ("running", "pause", 1)
    assert client.post(f"{JOBS}/{job}/cancel").json()["requested"] == "cancel"
    with sessions.begin() as session:
        assert job_leases.renew(session, owned, lease_seconds=60) == RequestedAction.CANCEL


def test_events_come_newest_first_in_pages(client: TestClient, file_id: str, sessions: Sessions) -> None:
    job = create(client, file_id)["id"]
    owned = claim(sessions, job)
    step = NewEvent("Step 10.", type="metrics", data={"step": 10, "loss": 0.5})
    with sessions.begin() as session:
        job_leases.record(session, owned, [step], progress={"step": 10}, eta=60.0)
    page = client.get(f"{JOBS}/{job}/events", params={"limit": 2}).json()
    assert [event["message"] for event in page["data"]] == ["Step 10.", "Started."]
    assert page["has_more"] is True
    first = page["data"][0]
    assert (first["object"], first["level"], first["type"]) == ("fine_tuning.job.event", "info", "metrics")
    assert first["data"] == {"step": 10, "loss": 0.5}
    rest = client.get(f"{JOBS}/{job}/events", params={"after": page["data"][1]["id"]}).json()
    assert [event["message"] for event in rest["data"]] == ["Created; waiting for a worker."]
    assert rest["has_more"] is False
    read = client.get(f"{JOBS}/{job}").json()
    assert read["progress"] == {"step": 10}
    assert 0 <= read["estimated_finish"] - first["created_at"] - 60 <= 5
    with sessions.begin() as session:
        job_leases.give_back(session, owned, "Stopped.")
    assert client.get(f"{JOBS}/{job}").json()["estimated_finish"] is None  # nobody knows when it begins again


def test_checkpoints_name_a_model_and_carry_metrics(client: TestClient, file_id: str, sessions: Sessions) -> None:
    job = create(client, file_id, suffix="art")["id"]
    owned = claim(sessions, job)
    with sessions.begin() as session:
        for step in (10, 20):
            job_leases.add_checkpoint(session, owned, step=step, metrics={"valid_loss": 0.1}, manifest={})
    page = client.get(f"{JOBS}/{job}/checkpoints", params={"limit": 1}).json()
    newest = page["data"][0]
    assert newest["fine_tuned_model_checkpoint"] == f"ft:tiny:art:{job.removeprefix('ftjob-')}:ckpt-step-20"
    assert newest["metrics"] == {"step": 20, "valid_loss": 0.1}
    assert (newest["step_number"], newest["fine_tuning_job_id"]) == (20, job)
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, newest["id"], newest["id"])
    rest = client.get(f"{JOBS}/{job}/checkpoints", params={"after": newest["id"]}).json()
    assert [checkpoint["step_number"] for checkpoint in rest["data"]] == [10]


def test_a_finished_job_lists_its_results_and_a_failed_one_its_error(
    client: TestClient, file_id: str, sessions: Sessions, project: Tenant
) -> None:
    good, bad = (create(client, file_id)["id"] for _ in range(2))
    adapter = NewFile(project.id, "pytorch_lora_weights.safetensors", "fine-tune-results", 3, "1" * 64)
    with sessions.begin() as session:
        made = job_leases.succeed(session, claim(sessions, good), results=[adapter])
        job_leases.fail(session, claim(sessions, bad), code="out_of_memory", message="Use a smaller batch.")
    done = client.get(f"{JOBS}/{good}").json()
    name = f"ft:tiny::{good.removeprefix('ftjob-')}"
    assert (done["status"], done["fine_tuned_model"], done["result_files"]) == ("succeeded", name, made)
    assert client.get(f"/v1/files/{made[0]}").json()["purpose"] == "fine-tune-results"
    failed = client.get(f"{JOBS}/{bad}").json()
    expected = {"code": "out_of_memory", "message": "Use a smaller batch.", "param": None}
    assert (failed["status"], failed["error"]) == ("failed", expected)


def test_a_job_that_has_ended_can_be_deleted_and_its_files_with_it(
    client: TestClient, sessions: Sessions, file_id: str, project: Tenant
) -> None:
    job_id = create(client, file_id)["id"]
    refused = client.delete(f"{JOBS}/{job_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "invalid_job_state")
    lease = claim(sessions, job_id)
    grid = NewFile(project.id, "samples-step-1.png", "fine-tune-results", 3, "2" * 64)
    with sessions.begin() as session:
        job_leases.add_sample(session, lease, grid, NewEvent("Samples.", data={"file_id": grid.id}))
        [result] = job_leases.succeed(
            session, lease, results=[NewFile(project.id, "a.safetensors", "fine-tune-results", 3, "1" * 64)]
        )
    model = client.get(f"{JOBS}/{job_id}").json()["fine_tuned_model"]
    assert client.delete(f"{JOBS}/{job_id}").json() == {"id": job_id, "object": "fine_tuning.job", "deleted": True}
    gone = [f"{JOBS}/{job_id}", f"{JOBS}/{job_id}/events", f"{JOBS}/{job_id}/checkpoints", f"/v1/models/{model}"]
    for path in (*gone, f"/v1/files/{result}", f"/v1/files/{grid.id}"):
        assert client.get(path).status_code == 404, path
    assert client.get(JOBS).json()["data"] == []
    assert client.get(JOBS, params={"metadata[a]": "b"}).json()["data"] == []
    assert client.get("/v1/models").json()["data"][-1]["id"] != model
    assert client.delete(f"{JOBS}/{job_id}").status_code == 404
    for action in ("cancel", "pause", "resume"):
        assert client.post(f"{JOBS}/{job_id}/{action}").status_code == 404
    assert client.get(f"/v1/files/{file_id}").status_code == 200


def test_a_repeated_create_after_a_deletion_makes_a_new_job(client: TestClient, file_id: str) -> None:
    body = {"model": "tiny", "training_file": file_id}
    first = client.post(JOBS, json=body).json()["id"]
    client.post(f"{JOBS}/{first}/cancel")
    client.delete(f"{JOBS}/{first}")
    again = client.post(JOBS, json=body, headers={"x-stainless-retry-count": "1"}).json()["id"]
    assert again != first
