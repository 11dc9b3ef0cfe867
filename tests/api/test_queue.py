"""A job's priority, its place in the queue, and when it may start."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from store import leases
from store.database import Sessions
from tests.api.job_steps import JOBS, claim, create

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("given", [11, -11, 0.5, "1", True])
def test_a_priority_is_a_whole_number_within_the_bounds(client: TestClient, file_id: str, given: object) -> None:
    answer = client.post(JOBS, json={"model": "tiny", "training_file": file_id, "priority": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")


def test_a_job_tells_its_priority_and_while_it_is_queued_its_place(
    client: TestClient, sessions: Sessions, file_id: str
) -> None:
    plain, urgent = create(client, file_id), create(client, file_id, priority=3)
    assert (plain["priority"], urgent["priority"]) == (0, 3)

    def place(job_id: str) -> int | None:
        found: int | None = client.get(f"{JOBS}/{job_id}").json()["queue_position"]
        return found

    before, after = place(urgent["id"]), place(plain["id"])
    assert before is not None
    assert after is not None
    assert 1 <= before < after  # other tests' projects may stand in front
    listed = {job["id"]: job["queue_position"] for job in client.get(JOBS).json()["data"]}
    assert listed == {urgent["id"]: before, plain["id"]: after}
    owned = claim(sessions, urgent["id"])
    assert place(urgent["id"]) is None
    with sessions.begin() as session:
        leases.record(session, owned, [], progress={"step": 1}, eta=60)
        leases.succeed(session, owned, results=[])
    running = claim(sessions, create(client, file_id)["id"])
    waiting = client.get(f"{JOBS}/{plain['id']}").json()
    assert waiting["queue_position"] >= 1
    assert waiting["expected_start"] >= waiting["created_at"]
    with sessions.begin() as session:
        leases.fail(session, running, code="c", message="m")
    assert client.post(f"{JOBS}/{plain['id']}/cancel").json()["queue_position"] is None
