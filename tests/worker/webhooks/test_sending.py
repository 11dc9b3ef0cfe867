"""Webhooks arrive as the SDK takes them, from the rows that the end of a job leaves to a real receiver."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from openai import OpenAI
from sqlalchemy import func, text, update

from store.jobs import job_leases, jobs
from store.settings import REPOSITORY, Settings
from store.tables.webhook import WebhookSecret
from store.webhooks import endpoints
from store.webhooks.signing import signing_key
from tests.api.polling import until
from tests.store.rows import running_job
from tests.worker.receiver import receiving
from tests.worker.webhook_steps import accepts, cancelled, come_due, deliver, endpoint, only, secret
from worker.resources import Resources
from worker.webhooks import sending

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_the_sdk_accepts_the_end_of_a_job(parts: Resources, project_id: str, end: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url("/hook?team=a%20b"))
        owned = running_job(parts.sessions, project_id)
        with parts.sessions.begin() as session:
            if end == "succeeded":
                job_leases.succeed(session, owned, results=[])
            elif end == "failed":
                job_leases.fail(session, owned, code="c", message="m")
            else:
                jobs.cancel(session, project_id, owned.job_id)
                job_leases.give_back(session, owned, "")
        deliver(parts)
    [one] = receiver.received
    with OpenAI(api_key="none", webhook_secret=secret(parts, endpoint_id)) as client:
        event = client.webhooks.unwrap(one.body, one.headers)
    assert (event.type, event.object) == (f"fine_tuning.job.{end}", "event")
    assert type(event).__name__ == f"FineTuningJob{end.capitalize()}WebhookEvent"
    assert event.data.id == owned.job_id  # type: ignore[union-attr]
    assert abs(event.created_at - time.time()) < 60
    assert event.id == one.headers["webhook-id"]
    assert (one.path, one.headers["content-type"]) == ("/hook?team=a%20b", "application/json")
    assert one.headers["host"] == f"127.0.0.1:{receiver.port}"
    delivery = only(parts, endpoint_id)
    assert (delivery.attempts, delivery.last_status, delivery.last_error) == (1, 200, None)
    assert delivery.delivered_at is not None
    assert delivery.next_attempt_at is None


def test_what_was_changed_on_the_way_is_not_accepted(parts: Resources, project_id: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        deliver(parts)
    [one] = receiver.received
    assert accepts(one, secret(parts, endpoint_id))
    assert not accepts(replace(one, body=one.body.replace(b"cancelled", b"succeeded")), secret(parts, endpoint_id))
    assert not accepts(replace(one, headers=one.headers | {"webhook-id": "evt-1"}), secret(parts, endpoint_id))
    assert not accepts(one, secret(parts, "webhook-other"))


def test_after_a_rotation_both_secrets_are_accepted_until_the_old_one_ends(parts: Resources, project_id: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        with parts.sessions.begin() as session:
            endpoints.rotate(session, project_id, endpoint_id, key_check=signing_key(parts.settings).check)
        cancelled(parts, project_id)
        deliver(parts)
        with parts.sessions.begin() as session:
            session.execute(update(WebhookSecret).where(WebhookSecret.version == 1).values(expires_at=func.now()))
        cancelled(parts, project_id)
        deliver(parts)
    during, after = receiver.received
    assert len(during.headers["webhook-signature"].split(" ")) == 2
    old, new = secret(parts, endpoint_id, 1), secret(parts, endpoint_id, 2)
    assert [accepts(one, which) for one in (during, after) for which in (old, new)] == [True, True, False, True]


def test_nothing_is_signed_by_another_deployment_key(parts: Resources, project_id: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        other = Settings(webhooks_key="k" * 32).webhooks_key
        deliver(replace(parts, settings=parts.settings.model_copy(update={"webhooks_key": other})))
        assert "PAIRTUNE_WEBHOOKS_KEY" in (only(parts, endpoint_id).last_error or "")
        assert receiver.received == []
        come_due(parts)
        deliver(parts)
        assert len(receiver.received) == 1


def test_a_signing_key_that_cannot_be_read_is_reported(parts: Resources, project_id: str, tmp_path: Path) -> None:
    endpoint_id = endpoint(parts, project_id, "http://127.0.0.1:9/")
    cancelled(parts, project_id)
    deliver(replace(parts, settings=parts.settings.model_copy(update={"home": tmp_path / "absent"})))
    reported = "The dispatcher cannot read its signing key: No such file or directory."
    assert only(parts, endpoint_id).last_error == reported


def test_the_database_alone_shows_no_secret(parts: Resources, project_id: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        deliver(parts)
    whole = secret(parts, endpoint_id).removeprefix("whsec_")
    with parts.sessions() as session:
        for table in ("webhook_endpoints", "webhook_secrets", "webhook_deliveries"):
            rows = session.scalars(text(f"SELECT t::text FROM {table} t")).all()  # noqa: S608
            assert rows
            assert not any(whole in row or b64decode(whole).hex() in row for row in rows)


def test_the_receiver_of_the_guide_takes_an_event(parts: Resources, project_id: str, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "guides" / "webhooks.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    endpoint_id, forged = (endpoint(parts, project_id, url) for _ in range(2))
    for ours, here in (("whsec_...", secret(parts, endpoint_id)), ("8080", str(port))):
        assert ours in example
        example = example.replace(ours, here)
    job_id = cancelled(parts, project_id)
    with (tmp_path / "printed").open("wb") as printed, (tmp_path / "errors").open("wb") as errors:
        receiver = subprocess.Popen([sys.executable, "-c", example], stdout=printed, stderr=errors)
    try:
        until(lambda: _listens(port), seconds=30)
        deliver(parts)
    finally:
        receiver.kill()
        receiver.wait()
    assert [only(parts, one).last_status for one in (endpoint_id, forged)] == [204, 401]
    assert (tmp_path / "printed").read_text() == f"fine_tuning.job.cancelled {job_id}\n"


def test_a_claim_lasts_as_long_as_a_receiver_may_take_and_a_margin(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "send", lambda *_: None)  # a sender that was killed after its claim
    endpoint_id = endpoint(parts, project_id, "http://127.0.0.1:1/")
    cancelled(parts, project_id)
    with ThreadPoolExecutor() as pool:
        assert sending.Sending(parts, pool).start_due() == 1
    until_next = only(parts, endpoint_id).next_attempt_at - datetime.now(UTC)  # type: ignore[operator]
    lease = parts.settings.webhooks_timeout_seconds + sending.LEASE_MARGIN_SECONDS
    assert lease - 30 < until_next.total_seconds() <= lease


def test_no_more_is_claimed_than_threads_are_free(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Event()
    monkeypatch.setattr(sending, "AT_ONCE", 2)
    monkeypatch.setattr(sending, "send", lambda *_: go_on.wait(60))
    for _ in range(3):
        endpoint(parts, project_id, "http://127.0.0.1:1/")
    cancelled(parts, project_id)
    with ThreadPoolExecutor() as pool:
        under_way = sending.Sending(parts, pool)
        assert [under_way.start_due(), under_way.start_due()] == [2, 0]
        go_on.set()
        until(partial(ended, under_way))
        assert under_way.start_due() == 1


def test_the_guide_states_when_a_delivery_is_sent_again() -> None:
    assert list(sending.RETRY_SECONDS) == [5, 30, 2 * 60, 10 * 60, 3600, 6 * 3600, 24 * 3600]
    guide = (REPOSITORY / "docs" / "guides" / "webhooks.md").read_text(encoding="utf-8")
    assert "5 s, 30 s, 2 min, 10 min, 1 h, 6 h and 24 h" in guide


def ended(under_way: sending.Sending) -> bool:
    under_way.collect_ended(seconds=1)
    return under_way.idle


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
