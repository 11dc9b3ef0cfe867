"""Webhooks go to the addresses that were judged, and read little of what is there."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest

from store.webhooks.egress import parse
from tests.worker.receiver import Reply, receiving
from tests.worker.webhook_steps import cancelled, deliver, endpoint, only, resolving
from worker.resources import Resources
from worker.webhooks import post

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_is_refused_by_default(strict: Resources, project_id: str, scheme: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(strict, project_id, receiver.url().replace("http", scheme))
        cancelled(strict, project_id)
        deliver(strict)
        assert receiver.received == []
    assert "should begin with https" in (only(strict, endpoint_id).last_error or "") or scheme == "https"
    assert "private" in (only(strict, endpoint_id).last_error or "") or scheme == "http"


def test_a_name_that_has_come_to_mean_a_private_address_is_refused(
    strict: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL was fine when the endpoint was made; http is allowed here so that a request would arrive."""
    parts = replace(strict, settings=strict.settings.model_copy(update={"webhooks_allow_http": True}))
    with receiving() as receiver, resolving(monkeypatch, hooks=["127.0.0.1"]) as requested:
        endpoint_id = endpoint(parts, project_id, receiver.url(host="hooks.test"))
        cancelled(parts, project_id)
        deliver(parts)
        assert receiver.received == []
        assert requested == ["hooks.test"]
    assert "private, local or reserved" in (only(parts, endpoint_id).last_error or "")


def test_the_connection_goes_to_the_address_that_was_judged_and_the_name_is_resolved_once(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver, receiving(address="127.0.0.2", port=receiver.port) as rebound:
        with resolving(monkeypatch, hooks=["127.0.0.1", "127.0.0.2"]) as requested:
            endpoint_id = endpoint(parts, project_id, receiver.url(host="hooks.test"))
            cancelled(parts, project_id)
            deliver(parts)
        assert requested == ["hooks.test"]
        assert (len(receiver.received), rebound.received) == (1, [])
    assert receiver.received[0].headers["host"] == f"hooks.test:{receiver.port}"
    assert only(parts, endpoint_id).delivered_at is not None


def test_a_proxy_of_the_environment_is_not_used(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver, receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        deliver(parts)
        assert (len(receiver.received), proxy.received) == (1, [])


def test_tls_names_the_host_and_not_the_address(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server, resolving(monkeypatch, hooks=["127.0.0.1"]):

        def listen() -> None:
            connection, _ = server.accept()
            with connection:
                hello.append(connection.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        endpoint_id = endpoint(parts, project_id, f"https://hooks.test:{server.getsockname()[1]}/")
        cancelled(parts, project_id)
        deliver(parts)
        thread.join()
    assert b"hooks.test" in hello[0]
    assert only(parts, endpoint_id).delivered_at is None


def test_of_several_addresses_the_next_is_tried(parts: Resources) -> None:
    with receiving(address="127.0.0.2") as receiver:
        target = parse(receiver.url(host="hooks.test"), parts.settings)
        answer = post.post(target, ["127.0.0.1", "127.0.0.2"], {}, "{}", seconds=5)
    assert answer.status == 200


def test_no_more_than_a_kibibyte_of_an_answer_is_stored(parts: Resources, project_id: str) -> None:
    """Of one that never ends, either: its connection is closed."""
    body = b"x" * 50_000_000
    with receiving(lambda _: Reply(500, {"content-length": str(10**12)}, body)) as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        cancelled(parts, project_id)
        started = time.monotonic()
        deliver(parts)
        assert time.monotonic() - started < 2
    delivery = only(parts, endpoint_id)
    assert delivery.last_status == 500
    assert (delivery.last_error or "").count("x") == post.ANSWER_BYTES
