"""A create with an Idempotency-Key happens once, however often and from wherever it is sent."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import httpx2
import pytest
from sqlalchemy import select, text, update
from starlette.testclient import TestClient

from store.database import Sessions
from store.tables.idempotency import IdempotencyKey
from store.tables.project import Project
from store.tenants import idempotency
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS
from tests.api.polling import until
from tests.api.serving import Live
from tests.conftest import Tenant

pytestmark = pytest.mark.integration


def key(name: str) -> dict[str, str]:
    return {"idempotency-key": name}


def body(file_id: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "training_file": file_id} | more


CREATES = ("job", "file", "upload")


def create(client: TestClient, what: str, file_id: str, name: str, variant: int = 0) -> httpx2.Response:
    if what == "job":
        return client.post(JOBS, json=body(file_id, seed=variant), headers=key(name))
    if what == "file":
        files = {"file": (f"pairs-{variant}.zip", b"not really")}
        return client.post("/v1/files", data={"purpose": "fine-tune"}, files=files, headers=key(name))
    begun = {"filename": "a", "bytes": 1 + variant, "mime_type": "application/zip", "purpose": "fine-tune"}
    return client.post("/v1/uploads", json=begun, headers=key(name))


@pytest.mark.parametrize("what", CREATES)
def test_a_create_sent_again_is_answered_as_it_was_and_makes_nothing(
    client: TestClient, file_id: str, what: str
) -> None:
    first, again = (create(client, what, file_id, "once") for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = create(client, what, file_id, "twice")
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("what", CREATES)
def test_the_same_key_with_another_body_is_refused(client: TestClient, file_id: str, what: str) -> None:
    create(client, what, file_id, "mine")
    answer = create(client, what, file_id, "mine", variant=1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_mismatch")


def test_the_same_key_for_another_operation_is_refused(client: TestClient, file_id: str) -> None:
    create(client, "job", file_id, "mine")
    assert create(client, "upload", file_id, "mine").status_code == 422


@pytest.mark.parametrize("path", [JOBS, "/v1/images/generations"])
def test_the_same_key_and_body_for_another_operation_is_refused(client: TestClient, path: str) -> None:
    """The answer of one operation must never stand for that of another."""
    sent = {"name": "line art"}
    assert client.post("/v1/datasets", json=sent, headers=key("mine")).status_code == 200
    answer = client.post(path, json=sent, headers=key("mine"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert client.post("/v1/datasets", json=sent, headers=key("mine")).headers["idempotent-replayed"] == "true"


def test_a_key_belongs_to_the_api_key_that_used_it(
    client: TestClient, sessions: Sessions, file_id: str, other_project: Tenant
) -> None:
    mine = create(client, "job", file_id, "shared").json()
    client.headers["authorization"] = f"Bearer {other_project.api_key}"
    theirs = create(client, "job", add_file(sessions, other_project.id).id, "shared")
    assert theirs.status_code == 200
    assert theirs.json()["id"] != mine["id"]


def test_a_refused_create_leaves_its_key_free(client: TestClient, file_id: str) -> None:
    refused = client.post(JOBS, json=body(file_id, seed=-1), headers=key("again"))
    assert refused.status_code == 400
    assert client.post(JOBS, json=body(file_id), headers=key("again")).status_code == 200


def test_a_create_whose_first_request_is_still_in_flight_gets_the_advice_to_retry(live: Live) -> None:
    """The first one stands still half way: it waits for its project's row, which this test holds."""
    file = add_file(live.sessions, live.tenant.id)
    headers = key("in-flight") | {"authorization": f"Bearer {live.tenant.api_key}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        with live.sessions.begin() as holding:
            holding.execute(select(Project.id).where(Project.id == live.tenant.id).with_for_update())
            first = pool.submit(client.post, JOBS, json=body(file.id))
            until(lambda: _waiting_for_a_row(live.sessions), seconds=20)
            second = client.post(JOBS, json=body(file.id))
            assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_in_flight")
            assert "x-should-retry" not in second.headers  # the openai SDK then tries again by itself
            assert not first.done()
        made = first.result(timeout=30)
        third = client.post(JOBS, json=body(file.id))
    assert (made.status_code, third.status_code) == (200, 200)
    assert (third.json()["id"], third.headers["idempotent-replayed"]) == (made.json()["id"], "true")


def _waiting_for_a_row(sessions: Sessions) -> bool:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with sessions() as session:
        return bool(session.scalar(waiting))


def test_fifty_at_once_make_one_job(live: Live) -> None:
    file = add_file(live.sessions, live.tenant.id)
    headers = key("fifty") | {"authorization": f"Bearer {live.tenant.api_key}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=30) as client:
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda _: client.post(JOBS, json=body(file.id, suffix="fifty")), range(50)))
        codes = Counter(answer.status_code for answer in answers)
        assert codes.keys() <= {200, 409}
        assert len({answer.json()["id"] for answer in answers if answer.status_code == 200}) == 1
        in_flight = [answer for answer in answers if answer.status_code == 409]
        assert {answer.json()["error"]["code"] for answer in in_flight} <= {"idempotency_in_flight"}
        assert not any("x-should-retry" in answer.headers for answer in in_flight)  # clients may try again
        listed = client.get(JOBS, params={"limit": 100}).json()["data"]
        assert len([job for job in listed if job["suffix"] == "fifty"]) == 1


@pytest.mark.parametrize("name", ["", "a" * 256, "with space", "ümlaut"])
def test_a_key_that_is_none_is_refused(client: TestClient, file_id: str, name: str) -> None:
    answer = client.post(JOBS, json=body(file_id), headers={b"idempotency-key": name.encode()})
    assert answer.status_code == 400


def test_keys_are_forgotten_after_a_day(client: TestClient, sessions: Sessions, file_id: str) -> None:
    first = create(client, "job", file_id, "old").json()
    create(client, "job", file_id, "young")
    with sessions.begin() as session:
        late = IdempotencyKey.created_at - idempotency.RETENTION - timedelta(minutes=1)
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == "old").values(created_at=late))
        idempotency.delete_expired(session)
    assert create(client, "job", file_id, "old").json()["id"] != first["id"]
    assert create(client, "job", file_id, "young").headers["idempotent-replayed"] == "true"
