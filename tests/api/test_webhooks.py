"""/v1/webhooks: making, seeing, rotating and deleting webhooks, and the log of their deliveries."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from store.database import Sessions
from store.settings import Settings
from store.tables.webhook import WebhookDelivery
from store.webhooks import delivery_log, endpoints
from store.webhooks.delivery_log import DueDelivery
from tests.api.conftest import open_client
from tests.api.job_steps import JOBS, create
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
WEBHOOKS = "/v1/webhooks"
URL = "http://127.0.0.1:9/hook"
EVERY = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


@pytest.fixture(scope="module")
def allowing(settings: Settings) -> Iterator[TestClient]:
    """An API whose operator lets webhooks go to loopback."""
    allowed = {"webhooks_allow_http": True, "webhooks_allow_private": True}
    with open_client(settings.model_copy(update=allowed)) as client:
        yield client


@pytest.fixture
def local(allowing: TestClient, broker_url: str, project: Tenant) -> TestClient:
    allowing.headers["authorization"] = f"Bearer {project.api_key}"
    return allowing


def made(client: TestClient, **more: Any) -> dict[str, Any]:
    answer = client.post(WEBHOOKS, json={"url": URL} | more)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def deliveries(client: TestClient, webhook: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = client.get(f"{WEBHOOKS}/{webhook['id']}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def cancelled(client: TestClient, file_id: str) -> str:
    job_id: str = create(client, file_id)["id"]
    assert client.post(f"{JOBS}/{job_id}/cancel").json()["status"] == "cancelled"
    return job_id


def test_a_webhook_is_made_shown_listed_and_deleted(local: TestClient) -> None:
    webhook = made(local)
    assert (webhook["object"], webhook["url"], webhook["events"]) == ("webhook_endpoint", URL, EVERY)
    assert (webhook["secret_version"], webhook["disabled_at"]) == (1, None)
    assert webhook["signing_secret"].startswith("whsec_")
    assert len(b64decode(webhook["signing_secret"].removeprefix("whsec_"))) == 32
    shown = {name: value for name, value in webhook.items() if name not in ("signing_secret", "secret_version")}
    assert local.get(f"{WEBHOOKS}/{webhook['id']}").json() == shown
    second = made(local, events=EVERY[:1])
    listed = local.get(WEBHOOKS, params={"limit": 1}).json()
    assert ([one["id"] for one in listed["data"]], listed["has_more"]) == ([second["id"]], True)
    rest = local.get(WEBHOOKS, params={"after": second["id"]}).json()
    assert (rest["data"], rest["has_more"], rest["last_id"]) == ([shown], False, webhook["id"])
    for path in (WEBHOOKS, f"{WEBHOOKS}/{webhook['id']}/deliveries"):
        assert local.get(path, params={"after": "nothing"}).json()["error"]["code"] == "invalid_cursor"
    deleted = local.delete(f"{WEBHOOKS}/{webhook['id']}").json()
    assert deleted == {"id": webhook["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    assert local.get(f"{WEBHOOKS}/{webhook['id']}").status_code == 404
    gone = local.delete(f"{WEBHOOKS}/{webhook['id']}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "webhook_not_found")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/", "should begin with https://"),
        ("https://localhost/", "private, local or reserved"),
        ("https://127.0.0.1:8000/v1", "private, local or reserved"),
        ("https://169.254.169.254/latest/meta-data", "private, local or reserved"),
        ("https://[::ffff:10.0.0.1]/", "private, local or reserved"),
        ("https://nowhere.invalid/", "cannot be resolved"),
        ("https://me@example.com/", "no user, password or fragment"),
    ],
)
def test_a_url_that_may_not_be_sent_to_is_refused(client: TestClient, url: str, message: str) -> None:
    answer = client.post(WEBHOOKS, json={"url": url})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "url_refused", "url")
    assert message in error["message"]


def test_a_link_local_address_is_refused_whatever_is_allowed(local: TestClient) -> None:
    assert local.post(WEBHOOKS, json={"url": "http://169.254.169.254/"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ({}, {"url"}),
        ({"url": 5, "events": "all"}, {"url", "events"}),
        ({"url": URL, "events": []}, {"events"}),
        ({"url": URL, "events": [EVERY[0], EVERY[0]]}, {"events"}),
        ({"url": URL, "events": ["batch.completed"], "name": "x"}, {"events.0", "name"}),
        ({"url": "x" * 3000}, {"url"}),
    ],
)
def test_every_fault_of_a_request_is_reported(local: TestClient, body: dict[str, Any], params: set[str]) -> None:
    answer = local.post(WEBHOOKS, json=body)
    assert answer.status_code == 400
    assert {field_error["param"] for field_error in answer.json()["error"]["errors"]} == params


def test_a_project_may_have_so_many(local: TestClient) -> None:
    for _ in range(endpoints.MAX_ENDPOINTS):
        made(local)
    answer = local.post(WEBHOOKS, json={"url": URL})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "too_many_webhooks")


def test_a_create_sent_again_is_answered_with_the_same_secret_which_the_database_does_not_hold(
    local: TestClient, sessions: Sessions
) -> None:
    headers = {"idempotency-key": "once"}
    first, again = (local.post(WEBHOOKS, json={"url": URL}, headers=headers) for _ in range(2))
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert len(local.get(WEBHOOKS).json()["data"]) == 1
    assert local.post(WEBHOOKS, json={"url": URL + "s"}, headers=headers).status_code == 422
    with sessions() as session:
        stored = session.scalars(text("SELECT answer::text FROM idempotency_keys WHERE key = 'once'")).all()
    assert any(first.json()["id"] in answer for answer in stored)
    assert not any("whsec_" in answer for answer in stored)


def test_a_rotation_makes_a_new_secret_and_sent_again_no_other(local: TestClient) -> None:
    webhook = made(local)
    path = f"{WEBHOOKS}/{webhook['id']}/rotate"
    first, again = (local.post(path, headers={"idempotency-key": "rotate"}).json() for _ in range(2))
    assert first == again
    assert (first["id"], first["secret_version"]) == (webhook["id"], 2)
    assert first["signing_secret"] != webhook["signing_secret"]
    assert local.post(path).json()["secret_version"] == 3


def test_deliveries_are_listed_with_what_became_of_them(local: TestClient, sessions: Sessions, file_id: str) -> None:
    webhook = made(local, events=["fine_tuning.job.cancelled"])
    job_ids = [cancelled(local, file_id) for _ in range(3)]
    page = deliveries(local, webhook, limit=2)
    assert ([one["fine_tuning_job_id"] for one in page["data"]], page["has_more"]) == (job_ids[:0:-1], True)
    [oldest] = deliveries(local, webhook, after=page["last_id"])["data"]
    assert (oldest["object"], oldest["webhook_id"]) == ("webhook_endpoint.delivery", webhook["id"])
    assert (oldest["fine_tuning_job_id"], oldest["type"]) == (job_ids[0], "fine_tuning.job.cancelled")
    assert (oldest["status"], oldest["attempts"]) == ("pending", 0)
    with sessions.begin() as session:
        first, second = (DueDelivery(one["id"], webhook["id"], "", "", 0) for one in page["data"])
        delivery_log.delivered(session, first, status=200)
        delivery_log.failed(session, second, status=500, error="The receiver answered 500.", again_in=None)
    states = {one["status"]: one for one in deliveries(local, webhook)["data"]}
    assert states.keys() == {"delivered", "failed", "pending"}
    assert (states["delivered"]["last_status"], states["delivered"]["next_attempt_at"]) == (200, None)
    assert (states["failed"]["last_status"], states["failed"]["last_error"]) == (500, "The receiver answered 500.")
    assert states["failed"]["delivered_at"] is None


@pytest.mark.parametrize("before", ["delivered", "failed"])
def test_a_delivery_is_sent_again_on_request(local: TestClient, sessions: Sessions, file_id: str, before: str) -> None:
    webhook = made(local)
    cancelled(local, file_id)
    [delivery] = deliveries(local, webhook)["data"]
    with sessions.begin() as session:
        due = DueDelivery(delivery["id"], webhook["id"], "", "", 0)
        if before == "delivered":
            delivery_log.delivered(session, due, status=200)
        else:
            delivery_log.failed(session, due, status=500, error="m", again_in=None)
    assert deliveries(local, webhook)["data"][0]["status"] == before
    path = f"{WEBHOOKS}/{webhook['id']}/deliveries/{delivery['id']}/retry"
    answer = local.post(path).json()
    assert (answer["id"], answer["event_id"], answer["status"]) == (delivery["id"], delivery["event_id"], "pending")
    with sessions.begin() as session:
        assert delivery["id"] in {one.id for one in delivery_log.claim(session, limit=100_000, lease_seconds=60)}


def test_a_delivery_is_found_under_its_own_webhook_alone(local: TestClient, file_id: str) -> None:
    webhook, other = made(local), made(local, events=["fine_tuning.job.failed"])
    cancelled(local, file_id)
    [delivery] = deliveries(local, webhook)["data"]
    answer = local.post(f"{WEBHOOKS}/{other['id']}/deliveries/{delivery['id']}/retry")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "webhook_delivery_not_found")


def test_to_a_disabled_webhook_nothing_is_sent_again(local: TestClient, sessions: Sessions, file_id: str) -> None:
    webhook = made(local)
    cancelled(local, file_id)
    [delivery] = deliveries(local, webhook)["data"]
    with sessions.begin() as session:
        endpoints.disable(session, webhook["id"])
    assert local.get(f"{WEBHOOKS}/{webhook['id']}").json()["disabled_at"] is not None
    answer = local.post(f"{WEBHOOKS}/{webhook['id']}/deliveries/{delivery['id']}/retry")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "webhook_disabled")


def test_with_a_webhook_its_log_goes_and_the_job_stays(local: TestClient, sessions: Sessions, file_id: str) -> None:
    webhook = made(local)
    job_id = cancelled(local, file_id)
    assert local.delete(f"{WEBHOOKS}/{webhook['id']}").status_code == 200
    with sessions() as session:
        assert session.query(WebhookDelivery).filter_by(job_id=job_id).all() == []
    assert local.get(f"{JOBS}/{job_id}").json()["status"] == "cancelled"
