"""Webhooks on their way: from the rows that the end of a job leaves to a real receiver."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from sqlalchemy import func, text, update

from store import jobs, leases, webhook_deliveries, webhooks
from store.settings import REPOSITORY, Settings
from store.webhook_outbox import TYPES
from store.webhook_secrets import shown, signing_key
from store.webhook_tables import WebhookDelivery, WebhookEndpoint, WebhookSecret
from tests.api.polling import until
from tests.store.rows import queued_job, running_job
from tests.worker.receiver import Received, Reply, receiving
from worker import webhook_post
from worker import webhooks as sender
from worker.resources import Resources

pytestmark = pytest.mark.integration


@pytest.fixture
def strict(resources: Resources) -> Resources:
    """As it is by default: https and public addresses alone."""
    return replace(resources, settings=resources.settings.model_copy(update={"webhooks_timeout_seconds": 2.0}))


@pytest.fixture
def parts(strict: Resources) -> Resources:
    """Loopback is allowed."""
    update = {"webhooks_allow_http": True, "webhooks_allow_private": True}
    return replace(strict, settings=strict.settings.model_copy(update=update))


def endpoint(parts: Resources, project_id: str, url: str) -> str:
    check = signing_key(parts.settings).check
    with parts.sessions.begin() as session:
        return webhooks.create(session, project_id, url=url, events=list(TYPES.values()), key_check=check).id


def cancelled(parts: Resources, project_id: str) -> str:
    job_id = queued_job(parts.sessions, project_id)
    with parts.sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    return job_id


def deliver(parts: Resources) -> None:
    """What is due now, each once, to its end."""
    with ThreadPoolExecutor(sender.AT_ONCE) as pool:
        sending = sender.Sending(parts, pool)
        sending.start_due()
        while not sending.idle:
            sending.settle(seconds=1)


def come_due(parts: Resources) -> None:
    """As if the time of every retry had come."""
    with parts.sessions.begin() as session:
        waiting = update(WebhookDelivery).where(WebhookDelivery.next_attempt_at.is_not(None))
        session.execute(waiting.values(next_attempt_at=func.clock_timestamp()))


def log(parts: Resources, endpoint_id: str) -> list[WebhookDelivery]:
    with parts.sessions() as session:
        return webhook_deliveries.newest_first(session, endpoint_id, after=None, limit=1000)


def only(parts: Resources, endpoint_id: str) -> WebhookDelivery:
    [delivery] = log(parts, endpoint_id)
    return delivery


def seconds_to_next(parts: Resources, endpoint_id: str) -> float | None:
    with parts.sessions() as session:
        left = func.extract("epoch", WebhookDelivery.next_attempt_at - func.clock_timestamp())
        found = session.scalar(session.query(left).filter_by(endpoint_id=endpoint_id).statement)
    return None if found is None else float(found)


def secret(parts: Resources, endpoint_id: str, version: int = 1) -> str:
    return shown(signing_key(parts.settings).secret(endpoint_id, version))


def accepts(received: Received, secret: str) -> bool:
    with OpenAI(api_key="none", webhook_secret=secret) as client:
        try:
            client.webhooks.verify_signature(received.body, received.headers)
        except openai.InvalidWebhookSignatureError:
            return False
        return True


@contextmanager
def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> Iterator[list[str]]:
    """Names of ``.test`` resolve to these addresses, one after the other; yields what was asked for."""
    real, asked = socket.getaddrinfo, list[str]()

    def answer(host: str, *rest: object, **more: object) -> object:
        name = str(host).removesuffix(".test")
        if name not in names:
            return real(host, *rest, **more)  # type: ignore[arg-type]
        address = names[name][min(asked.count(host), len(names[name]) - 1)]
        asked.append(host)
        return real(address, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", answer)
        yield asked


# --------------------------------------------------------------------------------------------------------- acceptance


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_the_sdk_accepts_the_end_of_a_job(parts: Resources, project_id: str, end: str) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url("/hook?team=a%20b"))
        owned = running_job(parts.sessions, project_id)
        with parts.sessions.begin() as session:
            if end == "succeeded":
                leases.succeed(session, owned, results=[])
            elif end == "failed":
                leases.fail(session, owned, code="c", message="m")
            else:
                jobs.cancel(session, project_id, owned.job_id)
                leases.give_back(session, owned, "")
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
            webhooks.rotate(session, project_id, endpoint_id, key_check=signing_key(parts.settings).check)
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
        other = Settings(webhooks_key="k" * 32).webhooks_key  # type: ignore[arg-type]  # as the environment gives it
        deliver(replace(parts, settings=parts.settings.model_copy(update={"webhooks_key": other})))
        assert "PAIRTUNE_WEBHOOKS_KEY" in (only(parts, endpoint_id).last_error or "")
        assert receiver.received == []
        come_due(parts)
        deliver(parts)
        assert len(receiver.received) == 1


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
    guide = (REPOSITORY / "docs" / "webhooks.md").read_text(encoding="utf-8")
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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ------------------------------------------------------------------------------------------------------------ retries


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
            webhooks.disable(session, endpoint_id)
        deliver(parts)
        assert receiver.received == []
    assert only(parts, endpoint_id).next_attempt_at is None


def test_an_endpoint_that_is_deleted_while_it_is_sent_to_leaves_nothing(parts: Resources, project_id: str) -> None:
    def remove(_: int) -> Reply:
        with parts.sessions.begin() as session:
            webhooks.remove(session, project_id, endpoint_id)
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


# ---------------------------------------------------------------------------------------------------- where it may go


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
    with receiving() as receiver, resolving(monkeypatch, hooks=["127.0.0.1"]) as asked:
        endpoint_id = endpoint(parts, project_id, receiver.url(host="hooks.test"))
        cancelled(parts, project_id)
        deliver(parts)
        assert receiver.received == []
        assert asked == ["hooks.test"]
    assert "private, local or reserved" in (only(parts, endpoint_id).last_error or "")


def test_the_connection_goes_to_the_address_that_was_judged_and_the_name_is_asked_for_once(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver, receiving(address="127.0.0.2", port=receiver.port) as rebound:
        with resolving(monkeypatch, hooks=["127.0.0.1", "127.0.0.2"]) as asked:
            endpoint_id = endpoint(parts, project_id, receiver.url(host="hooks.test"))
            cancelled(parts, project_id)
            deliver(parts)
        assert asked == ["hooks.test"]
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
        target = sender.parse(receiver.url(host="hooks.test"), parts.settings)
        answer = webhook_post.post(target, ["127.0.0.1", "127.0.0.2"], {}, "{}", seconds=5)
    assert answer.status == 200


def test_no_more_than_a_kibibyte_of_an_answer_is_kept(parts: Resources, project_id: str) -> None:
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
    assert (delivery.last_error or "").count("x") == webhook_post.ANSWER_BYTES


# --------------------------------------------------------------------------------------------------- hanging, killing


@pytest.fixture
def running(parts: Resources) -> Iterator[Callable[[], None]]:
    """The sending thread of a dispatcher; called, it stops."""
    stop = threading.Event()
    thread = threading.Thread(target=sender.run, args=(parts, stop))
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()

    yield end
    end()


def test_a_receiver_that_hangs_holds_up_no_other(
    parts: Resources, project_id: str, running: Callable[[], None]
) -> None:
    go_on = threading.Event()

    def hang(_: int) -> Reply:
        go_on.wait(20)
        return Reply()

    with receiving(hang) as hanging, receiving() as receiver:
        try:
            slow, quick = (endpoint(parts, project_id, one.url()) for one in (hanging, receiver))
            for _ in range(40):  # more than there are threads
                cancelled(parts, project_id)
            started = time.monotonic()
            until(lambda: len(receiver.received) == 40, seconds=20)
            assert time.monotonic() - started < 10
            until(lambda: any(one.last_error for one in log(parts, slow)), seconds=10)
            assert len(hanging.received) < 10  # one at a time
        finally:
            go_on.set()
            running()
    assert {one.attempts for one in log(parts, quick)} == {1}
    told = {one.last_error for one in log(parts, slow) if one.last_error is not None}
    assert told == {"No answer within 2 seconds."}


def test_a_receiver_that_answers_byte_by_byte_has_no_more_time_than_others(parts: Resources, project_id: str) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                    for _ in range(50):  # ten seconds
                        if stop.wait(0.2):
                            return
                        connection.sendall(b"y")
                except OSError:
                    return  # the sender has gone

        thread = threading.Thread(target=drip)
        thread.start()
        endpoint_id = endpoint(parts, project_id, f"http://127.0.0.1:{server.getsockname()[1]}/")
        cancelled(parts, project_id)
        started = time.monotonic()
        deliver(parts)
        assert 1.5 < time.monotonic() - started < 4
        stop.set()
        thread.join()
    assert only(parts, endpoint_id).last_error == "No answer within 2 seconds."


class Dispatcher:
    """``python -m worker.dispatcher``, started as often as a test likes."""

    def __init__(self, settings: Settings, log: Path) -> None:
        names = ("home", "database_url", "broker_url", "dispatch_seconds", "webhooks_timeout_seconds")
        given = {name: str(getattr(settings, name)) for name in names}
        given |= {"webhooks_allow_http": "true", "webhooks_allow_private": "true"}
        self._environment = os.environ | {f"PAIRTUNE_{name.upper()}": value for name, value in given.items()}
        self._log = log
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "worker.dispatcher"]
        with self._log.open("ab") as log:
            self.started.append(subprocess.Popen(command, cwd=REPOSITORY, env=self._environment, stderr=log))
        return self.started[-1]


@pytest.fixture
def dispatcher(parts: Resources, tmp_path: Path) -> Iterator[Dispatcher]:
    patient = parts.settings.model_copy(update={"webhooks_timeout_seconds": 30.0})
    one = Dispatcher(patient, tmp_path / "dispatcher.log")
    yield one
    for process in one.started:
        process.kill()
        process.wait()


def test_killed_between_sending_and_noting_it_the_next_one_sends_it_again_with_the_same_id(
    parts: Resources, project_id: str, dispatcher: Dispatcher
) -> None:
    def kill_the_sender(number: int) -> Reply:
        if number == 0:
            dispatcher.started[0].send_signal(signal.SIGKILL)
            dispatcher.started[0].wait()
        return Reply()

    with receiving(kill_the_sender) as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        job_id = cancelled(parts, project_id)
        dispatcher.start()
        until(lambda: dispatcher.started[0].poll() is not None, seconds=30)
        left = only(parts, endpoint_id)
        assert (left.attempts, left.delivered_at) == (1, None)
        assert 60 < (seconds_to_next(parts, endpoint_id) or 0) < 91  # until then its sender may be alive
        come_due(parts)
        second = dispatcher.start()
        until(lambda: only(parts, endpoint_id).delivered_at is not None, seconds=30)
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
    assert [json.loads(one.body)["data"]["id"] for one in receiver.received] == [job_id] * 2
    assert all(accepts(one, secret(parts, endpoint_id)) for one in receiver.received)


def test_a_dispatcher_whose_receivers_hang_still_does_its_other_work(
    parts: Resources, project_id: str, dispatcher: Dispatcher
) -> None:
    go_on = threading.Event()

    def hang(_: int) -> Reply:
        go_on.wait(20)
        return Reply()

    with receiving(hang) as receiver:
        try:
            for number in range(8):
                endpoint(parts, project_id, receiver.url(f"/{number}"))
            cancelled(parts, project_id)
            dispatcher.start()
            until(lambda: len(receiver.received) == 8, seconds=30)
            expired = running_job(parts.sessions, project_id, lease_seconds=-1)
            until(lambda: _is_queued(parts, expired.job_id), seconds=10)  # one receiver alone may take 30
        finally:
            go_on.set()


def _is_queued(parts: Resources, job_id: str) -> bool:
    with parts.sessions() as session:
        return session.scalar(text("SELECT status FROM jobs WHERE id = :id"), {"id": job_id}) == "queued"
