from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.fine_tuning.live.series import picked
from store.database import Sessions
from store.jobs import job_leases
from store.jobs.events import NewEvent
from tests.api.job_steps import JOBS, claim, create

pytestmark = pytest.mark.integration


def progress(step: int, loss: float) -> NewEvent:
    data: dict[str, Any] = {"event": "progress", "step": step, "max_steps": 100, "loss": loss, "margin": None}
    return NewEvent(f"Step {step}.", type="metrics", data=data)


def metrics(step: int, *, final: bool = False) -> NewEvent:
    data: dict[str, Any] = {"event": "metrics", "step": step, "objective": 0.5, "implicit_accuracy": 0.75}
    return NewEvent("Held-out pairs.", type="metrics", data=data | {"final": final})


@pytest.fixture
def job_id(client: TestClient, sessions: Sessions, file_id: str) -> str:
    """A job that went on from step 20 after it had trained to step 30."""
    found: str = create(client, file_id)["id"]
    owned = claim(sessions, found)
    reported = [
        metrics(0),
        *[progress(step, 1.0) for step in (10, 20, 30)],
        *[progress(step, 0.5) for step in (30, 40)],
    ]
    with sessions.begin() as session:
        job_leases.record(session, owned, [*reported, metrics(40), metrics(40, final=True), NewEvent("Words.")])
    return found


def test_a_jobs_metrics_are_series_by_step_and_a_step_trained_twice_counts_once(
    client: TestClient, job_id: str
) -> None:
    found = client.get(f"{JOBS}/{job_id}/metrics").json()
    assert [(point["step"], point["loss"]) for point in found["training"]] == [
        (10, 1.0),
        (20, 1.0),
        (30, 0.5),
        (40, 0.5),
    ]
    assert found["training"][0]["margin"] is None
    assert [point["step"] for point in found["validation"]] == [0, 40]
    assert found["result"]["implicit_accuracy"] == 0.75


def test_a_job_that_has_not_run_has_empty_series(client: TestClient, file_id: str) -> None:
    found = client.get(f"{JOBS}/{create(client, file_id)['id']}/metrics").json()
    assert (found["training"], found["validation"], found["result"]) == ([], [], None)


def test_fewer_points_are_spread_over_the_run(client: TestClient, job_id: str) -> None:
    found = client.get(f"{JOBS}/{job_id}/metrics", params={"points": 2}).json()
    assert [point["step"] for point in found["training"]] == [10, 40]
    steps: list[dict[str, float | None]] = [{"step": float(step)} for step in range(1000)]
    assert [len(picked(steps, count)) for count in (1, 2, 7, 1000, 5000)] == [1, 2, 7, 1000, 1000]
    assert (picked(steps, 7)[0]["step"], picked(steps, 7)[-1]["step"]) == (0, 999)


def test_as_csv_every_series_is_in_one_table(client: TestClient, job_id: str) -> None:
    answer = client.get(f"{JOBS}/{job_id}/metrics", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["series"] for row in rows] == ["training"] * 4 + ["validation"] * 2 + ["result"]
    assert rows[0]["loss"] == "1.0"
    assert rows[-1]["implicit_accuracy"] == "0.75"


@pytest.mark.parametrize("wrong", [{"points": 0}, {"format": "xml"}])
def test_what_cannot_be_requested_is_refused(client: TestClient, job_id: str, wrong: dict[str, Any]) -> None:
    assert client.get(f"{JOBS}/{job_id}/metrics", params=wrong).status_code == 400
