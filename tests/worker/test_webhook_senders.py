"""Receivers that hang, and dispatchers that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from store.settings import REPOSITORY, Settings
from tests.api.polling import until
from tests.store.rows import running_job
from tests.worker.receiver import Reply, receiving
from tests.worker.test_outage import no_database
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
    reported = {one.last_error for one in log(parts, slow) if one.last_error is not None}
    assert reported == {"No answer within 2 seconds."}


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
        return bool(session.scalar(text("SELECT status FROM jobs WHERE id = :id"), {"id": job_id}) == "queued")


def test_a_database_that_is_away_for_a_while_ends_no_sender(
    parts: Resources, project_id: str, running: Callable[[], None], postgres_url: str
) -> None:
    with receiving() as receiver:
        endpoint_id = endpoint(parts, project_id, receiver.url())
        with capture_logs() as logs, no_database(postgres_url):
            until(lambda: any(entry["event"] == "webhook.database_unreachable" for entry in logs))
        cancelled(parts, project_id)
        until(lambda: only(parts, endpoint_id).delivered_at is not None)
        running()
    assert len(receiver.received) == 1
