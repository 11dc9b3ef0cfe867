"""A job's priority, its place in the queue, and when it may start."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from api.caches.queue_positions import QueuePositions
from store.database import Sessions, open_reader
from store.jobs import job_leases
from tests import servers
from tests.api.job_steps import JOBS, claim, create
from tests.api.polling import until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("given", [11, -11, 0.5, "1", True])
def test_a_priority_is_a_whole_number_within_the_bounds(client: TestClient, file_id: str, given: object) -> None:
    answer = client.post(JOBS, json={"model": "tiny", "training_file": file_id, "priority": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")


def test_a_job_reports_its_priority_and_while_it_is_queued_its_position(
    client: TestClient, sessions: Sessions, file_id: str
) -> None:
    plain, urgent = create(client, file_id), create(client, file_id, priority=3)
    assert (plain["priority"], urgent["priority"]) == (0, 3)

    def position(job_id: str) -> int | None:
        found: int | None = client.get(f"{JOBS}/{job_id}").json()["queue_position"]
        return found

    before, after = position(urgent["id"]), position(plain["id"])
    assert before is not None
    assert after is not None
    assert 1 <= before < after  # other tests' projects may stand in front
    listed = {job["id"]: job["queue_position"] for job in client.get(JOBS).json()["data"]}
    assert listed == {urgent["id"]: before, plain["id"]: after}
    owned = claim(sessions, urgent["id"])
    assert position(urgent["id"]) is None
    with sessions.begin() as session:
        job_leases.record(session, owned, [], progress={"step": 1}, eta=60)
        job_leases.succeed(session, owned, results=[])
    running = claim(sessions, create(client, file_id)["id"])

    def waiting() -> dict[str, int | None]:
        answer: dict[str, int | None] = client.get(f"{JOBS}/{plain['id']}").json()
        return answer

    until(lambda: waiting()["expected_start"] is not None, seconds=5)  # places are remembered for a moment
    assert (waiting()["queue_position"] or 0) >= 1
    assert (waiting()["expected_start"] or 0) >= (waiting()["created_at"] or 0)
    with sessions.begin() as session:
        job_leases.fail(session, running, code="c", message="m")
    assert client.post(f"{JOBS}/{plain['id']}/cancel").json()["queue_position"] is None


def test_positions_are_remembered_for_a_moment_and_a_job_that_came_since_has_one_at_once(
    client: TestClient, sessions: Sessions, file_id: str, database_url: str
) -> None:
    reader, queue_positions = open_reader(database_url), QueuePositions()
    first = create(client, file_id)["id"]
    before = queue_positions.of(reader, [first])
    client.post(f"{JOBS}/{first}/cancel")
    assert queue_positions.of(reader, [first]) == before
    second = create(client, file_id)["id"]
    assert set(queue_positions.of(reader, [first, second])) == {second}
    until(lambda: queue_positions.of(reader, [first]) == {}, seconds=5)
    client.post(f"{JOBS}/{second}/cancel")
    reader.dispose()


@pytest.mark.parametrize("given", [0, 289, 1.5, "24"])
def test_needed_memory_is_a_number_of_gib_that_some_device_has(client: TestClient, file_id: str, given: object) -> None:
    answer = client.post(JOBS, json={"model": "tiny", "training_file": file_id, "memory_gib": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "memory_gib")


def test_a_job_reports_the_memory_that_it_needs_and_goes_to_workers_that_have_it(
    client: TestClient, file_id: str, broker_url: str
) -> None:
    assert create(client, file_id)["memory_gib"] is None
    with servers.broker_client(broker_url) as broker:
        before = broker.llen("train-48g")
        assert create(client, file_id, memory_gib=40)["memory_gib"] == 40
        assert broker.llen("train-48g") == before + 1
