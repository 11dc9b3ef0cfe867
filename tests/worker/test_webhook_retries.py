"""What becomes of webhooks whose receiver fails, redirects, or is gone."""

from __future__ import annotations

import pytest

from store.tables.webhook import WebhookEndpoint
from store.webhooks import endpoints
from tests.worker.receiver import Reply, receiving
from tests.worker.webhook_steps import (
    accepts,
    cancelled,
    come_due,
    deliver,
    endpoint,
    log,
    only,
    seconds_to_next,
    secret,
)
from worker.resources import Resources
from worker.webhooks import sending as sender

pytestmark = pytest.mark.integration


def test_a_failure_is_tried_again_later_with_the_same_id(parts: Resources, project_id: str) -> None:
    with receiving(lambda number: Reply(500, body=b"not today\0") if number == 0 else Reply(204)) as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        deliver(parts)
        failed = only(parts, endpoint_id)
        assert (failed.delivered_at, failed.last_status) == (None, 500)
        assert failed.last_error == "The receiver answered 500. not today\ufffd"
        assert 2 < (seconds_to_next(parts, endpoint_id) or 0) < 7
        deliver(parts)
        assert len(receiver.received) == 1  # it is not due yet
        come_due(parts)
        deliver(parts)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == failed.event_id
    assert first.body == second.body
    assert accepts(second, secret(parts, endpoint_id))
    delivered = only(parts, endpoint_id)
    assert (delivered.attempts, delivered.last_status, delivered.last_error) == (2, 204, None)


def test_after_the_last_attempt_it_stays_in_the_log_as_failed(parts: Resources, project_id: str) -> None:
    with receiving(lambda _: Reply(503)) as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        waits: list[float] = []
        for _ in sender.RETRY_SECONDS:
            deliver(parts)
            waits.append(seconds_to_next(parts, endpoint_id) or 0)
            come_due(parts)
        deliver(parts)
        assert seconds_to_next(parts, endpoint_id) is None
        come_due(parts)
        deliver(parts)
    assert len(receiver.received) == only(parts, endpoint_id).attempts == 8
    assert len(set(receiver.ids)) == 1
    assert 24 * 3600 < sum(sender.RETRY_SECONDS) < 36 * 3600
    for waited, planned in zip(waits, sender.RETRY_SECONDS, strict=True):
        assert 0.8 * planned - 2 <= waited <= 1.2 * planned
    given_up = only(parts, endpoint_id)
    assert (given_up.last_status, given_up.delivered_at, given_up.next_attempt_at) == (503, None, None)


def test_waits_differ() -> None:
    assert len({sender.retry_delay(3) for _ in range(10)}) > 5


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
def test_a_redirect_is_a_failure_and_is_not_followed(parts: Resources, project_id: str, status: int) -> None:
    with (
        receiving() as elsewhere,
        receiving(lambda _: Reply(status, {"location": elsewhere.url()})) as receiver,
    ):
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        deliver(parts)
        assert (len(receiver.received), elsewhere.received) == (1, [])
    delivery = only(parts, endpoint_id)
    assert (delivery.last_status, delivery.delivered_at) == (status, None)
    assert "not followed" in (delivery.last_error or "")


def test_a_receiver_that_is_gone_is_sent_nothing_more(parts: Resources, project_id: str) -> None:
    with receiving(lambda _: Reply(410)) as receiver, receiving() as other:
        endpoint_id, alive = (endpoint(parts, project_id, one.url()) for one in (receiver, other))
        for _ in range(2):
            cancelled(parts, project_id)
        deliver(parts)
        with parts.sessions() as session:
            assert session.get_one(WebhookEndpoint, endpoint_id).disabled_at is not None
            assert session.get_one(WebhookEndpoint, alive).disabled_at is None
        cancelled(parts, project_id)
        come_due(parts)
        for _ in range(3):
            deliver(parts)
        assert (len(receiver.received), len(other.received)) == (1, 3)
    assert [(one.next_attempt_at, one.delivered_at) for one in log(parts, endpoint_id)] == [(None, None)] * 2


def test_a_delivery_that_was_left_to_a_disabled_endpoint_is_given_up(parts: Resources, project_id: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        with parts.sessions.begin() as session:
            endpoints.disable(session, endpoint_id)
        deliver(parts)
        assert receiver.received == []
    assert only(parts, endpoint_id).next_attempt_at is None


def test_an_endpoint_that_is_deleted_while_it_is_sent_to_leaves_nothing(parts: Resources, project_id: str) -> None:
    def remove(_: int) -> Reply:
        with parts.sessions.begin() as session:
            endpoints.remove(session, project_id, endpoint_id)
        return Reply(410)

    with receiving(remove) as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        deliver(parts)
        assert len(receiver.received) == 1
    assert log(parts, endpoint_id) == []


def test_nobody_listening_is_a_failure_to_be_tried_again(parts: Resources, project_id: str) -> None:
    with receiving() as receiver:
        url = receiver.url()
    endpoint_id = endpoint(parts, project_id, url)
    cancelled(parts, project_id)
    deliver(parts)
    delivery = only(parts, endpoint_id)
    assert (delivery.last_status, delivery.next_attempt_at is None) == (None, False)
    assert (delivery.last_error or "").startswith("No answer:")
