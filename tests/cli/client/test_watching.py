"""``pairtune watch`` and ``train --wait``: how they end, what they show, and a server that is away for a while."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select

from cli.client import retry
from store.jobs import job_leases, jobs
from store.jobs.events import NewEvent
from store.settings import settings
from store.tables.job import Job
from tests.api.polling import until
from tests.api.serving import Live
from tests.cli.front import Fate, in_front_of
from tests.cli.test_commands import Run, claim, file_id, run, started

__all__ = ["file_id", "run"]  # fixtures
pytestmark = pytest.mark.integration
End = Callable[[Live, str], None]


def succeed(live: Live, job_id: str) -> None:
    owned = claim(live, job_id)
    with live.sessions.begin() as session:
        job_leases.succeed(session, owned, results=[])


def fail(live: Live, job_id: str) -> None:
    owned = claim(live, job_id)
    with live.sessions.begin() as session:
        job_leases.fail(session, owned, code="nan", message="The loss is not a number.")


def cancel(live: Live, job_id: str) -> None:
    with live.sessions.begin() as session:
        jobs.cancel(session, live.tenant.id, job_id)


def pause(live: Live, job_id: str) -> None:
    with live.sessions.begin() as session:
        jobs.pause(session, live.tenant.id, job_id)


ENDS = [
    (succeed, "succeeded", 0, ""),
    (fail, "failed", 5, "failed: The loss is not a number."),
    (cancel, "cancelled", 5, "is cancelled."),
    (pause, "paused", 5, "`pairtune resume ftjob-"),
]


@pytest.mark.parametrize(("end", "status", "code", "said"), ENDS)
def test_watch_ends_with_0_only_for_a_job_that_succeeded(
    run: Run, live: Live, file_id: str, end: End, status: str, code: int, said: str
) -> None:
    job_id = str(started(run, file_id)["id"])
    end(live, job_id)
    result = run("watch", job_id, "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (code, status)
    assert said in result.stderr


@pytest.mark.parametrize(("end", "status", "code", "said"), ENDS)
def test_so_does_train_that_waits(
    run: Run, live: Live, file_id: str, end: End, status: str, code: int, said: str
) -> None:
    def newest() -> str | None:
        with live.sessions() as session:
            query = select(Job.id).where(Job.status == "queued", Job.training_file_id == file_id)
            return session.scalar(query)

    def work() -> None:
        until(lambda: newest() is not None)
        end(live, str(newest()))

    worker = threading.Thread(target=work)
    worker.start()
    result = run("train", file_id, "--base", "tiny", "--wait", "--json")
    worker.join()
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (code, status)
    assert said in result.stderr


def test_a_job_that_goes_on_for_longer_than_it_was_to_be_watched_ends_with_6(run: Run, file_id: str) -> None:
    result = run("train", file_id, "--base", "tiny", "--wait", "--timeout", "0.1")
    assert result.exit_code == 6
    assert "is still queued and continues." in result.stderr


def test_ctrl_c_ends_the_watching_and_says_that_the_job_goes_on(
    run: Run, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    result = run("train", file_id, "--base", "tiny", "--wait")
    assert result.exit_code == 130
    assert "continues; `pairtune watch ftjob-" in result.stderr


def test_a_server_that_is_away_for_a_while_is_waited_for_and_nothing_is_shown_twice(
    run: Run, live: Live, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = str(started(run, file_id)["id"])
    owned = claim(live, job_id)
    with live.sessions.begin() as session:
        job_leases.record(session, owned, [NewEvent(f"News {number}.") for number in range(3)])
        job_leases.succeed(session, owned, results=[])
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("cli.client.server.PAGE", 2)
    with in_front_of(live.url) as front:
        monkeypatch.setenv("PAIRTUNE_URL", front.url)
        settings.cache_clear()
        front.fates = ["pass", "drop", "busy", "lose", "pass", "pass", "drop", "pass", "busy"]
        result = run("watch", job_id)
        assert front.fates == []
    assert result.exit_code == 0, result.output
    shown = [line.strip() for line in result.stdout.splitlines()]
    assert [line for line in shown if line.startswith("News")] == ["News 0.", "News 1.", "News 2."]
    assert sum(line.endswith("Trying again.") for line in shown) == 3  # once each time that it was away
    assert sum(line == "The server answers again." for line in shown) == 3


def test_a_server_that_stays_away_is_given_up_when_the_time_is_over(
    run: Run, live: Live, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = str(started(run, file_id)["id"])
    with in_front_of(live.url) as front:
        monkeypatch.setenv("PAIRTUNE_URL", front.url)
        settings.cache_clear()
        drops: list[Fate] = ["drop"] * 100
        front.fates = ["pass", *drops]
        assert run("watch", job_id, "--timeout", "0.2").exit_code == 3
        front.fates = ["drop"]  # never there: not waited for
        assert run("watch", job_id).exit_code == 3
        assert front.fates == []
