"""A client's automatic retry of a create never makes a second job."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.fine_tuning import service
from api.fine_tuning.run_spec import Offer
from api.http.json_body import JsonBody
from api.http.transactions import UnitOfWork
from store.base_models import RegisteredBase
from store.blobs.blobs import Blobs
from store.database import Sessions
from store.tenants import api_keys
from tests.api.conftest import add_file
from tests.api.polling import until
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def request_body(sessions: Sessions, project: Tenant) -> bytes:
    return json.dumps({"model": "tiny", "training_file": add_file(sessions, project.id).id}).encode()


def post(client: TestClient, body: bytes, retry: str | None, key: str | None = None) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    headers |= {"x-stainless-retry-count": retry} if retry is not None else {}
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    answer = client.post(JOBS, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def count(client: TestClient) -> int:
    return len(client.get(JOBS).json()["data"])


def test_a_retry_is_answered_with_the_job_of_the_first_try(client: TestClient, request_body: bytes) -> None:
    first = post(client, request_body, "0")
    assert post(client, request_body, "1")["id"] == first["id"]
    assert post(client, request_body, "2")["id"] == first["id"]
    assert count(client) == 1


def test_a_retry_whose_first_try_was_lost_makes_the_job(client: TestClient, request_body: bytes) -> None:
    post(client, request_body, "1")
    assert count(client) == 1


@pytest.mark.parametrize("retry", [None, "", "0"])
def test_the_same_body_sent_again_on_purpose_makes_a_second_job(
    client: TestClient, request_body: bytes, retry: str | None
) -> None:
    assert post(client, request_body, retry)["id"] != post(client, request_body, retry)["id"]


def test_a_retry_with_another_body_or_key_is_another_job(
    client: TestClient, request_body: bytes, sessions: Sessions, project: Tenant
) -> None:
    first = post(client, request_body, "0")["id"]
    assert post(client, request_body + b" ", "1")["id"] != first
    with sessions.begin() as session:
        second_key = api_keys.create(session, api_keys.ensure_project(session, project.name), "second key")
    assert post(client, request_body, "1", second_key)["id"] != first


def test_a_retry_long_after_is_a_new_wish(client: TestClient, request_body: bytes, sessions: Sessions) -> None:
    first = post(client, request_body, "0")["id"]
    with sessions.begin() as session:
        earlier = text("UPDATE jobs SET created_at = created_at - interval '11 minutes' WHERE id = :id")
        session.execute(earlier, {"id": first})
    assert post(client, request_body, "1")["id"] != first


def test_retries_at_the_same_moment_make_one_job(client: TestClient, request_body: bytes) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: post(client, request_body, "1"), range(8)))
    assert len({job["id"] for job in jobs}) == 1
    assert count(client) == 1


def test_a_retry_waits_for_a_first_try_that_is_still_in_flight(
    client: TestClient, request_body: bytes, sessions: Sessions, blobs: Blobs, project: Tenant, api_key: str
) -> None:
    with sessions() as session:
        caller = api_keys.authenticate(session, api_key)
    offer = Offer({"tiny": RegisteredBase("tiny", "sdxl", "/nowhere", None)}, dinov2=None)
    body = JsonBody.parse(request_body)
    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            first = service.create(UnitOfWork(session), offer, blobs, caller, service.Sent.of(body), is_retry=False)
            retry = pool.submit(post, client, request_body, "1")
            until(lambda: _waiting(sessions) == 1)
            assert not retry.done()
        assert retry.result(timeout=10)["id"] == first.id


def _waiting(sessions: Sessions) -> int:
    with sessions() as session:
        query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return int(session.execute(query).scalar_one())
