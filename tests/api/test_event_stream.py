"""Events as they come: over a real socket, from a real database."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from api.fine_tuning.live import event_hub, event_stream
from api.fine_tuning.live.event_hub import EventBatch, EventHub
from store.database import Sessions
from store.job_status import JobStatus
from store.jobs import events, job_leases, jobs
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS, claim, create
from tests.api.serving import Live
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
Message = dict[str, str]


@contextmanager
def streamed(live: Live, job_id: str, **headers: str) -> Iterator[Iterator[Message]]:
    key = {"authorization": f"Bearer {live.tenant.api_key}"}
    with (
        httpx.Client(timeout=20) as client,
        client.stream("GET", f"{live.url}{JOBS}/{job_id}/events/stream", headers=key | headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield messages(answer.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """As a browser's EventSource reads them."""
    fields: Message = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields
            fields = {}
        else:
            fields = {}


def submitted(live: Live) -> str:
    file = add_file(live.sessions, live.tenant.id)
    body = {"model": "tiny", "training_file": file.id}
    answer = httpx.post(f"{live.url}{JOBS}", json=body, headers={"authorization": f"Bearer {live.tenant.api_key}"})
    job_id: str = answer.json()["id"]
    return job_id


def report(sessions: Sessions, owned: JobLease, *texts: str) -> None:
    with sessions.begin() as session:
        job_leases.record(session, owned, [NewEvent(text) for text in texts])


def texts(found: list[Message]) -> list[str]:
    return [json.loads(one["data"])["message"] for one in found if one["event"] != "done"]


def test_a_follower_gets_the_past_events_and_then_each_event_as_it_comes_until_the_end(live: Live) -> None:
    job_id = submitted(live)
    owned = claim(live.sessions, job_id)
    report(live.sessions, owned, "First.")
    with streamed(live, job_id) as stream:
        found = [next(stream) for _ in range(3)]  # created, started, first
        reported_at = time.monotonic()
        report(live.sessions, owned, "Second.", "Third.\nin two lines")
        found += [next(stream), next(stream)]
        assert time.monotonic() - reported_at < 3
        with live.sessions.begin() as session:
            job_leases.fail(session, owned, code="c", message="It broke.")
        found += list(stream)
    assert texts(found)[2:] == ["First.", "Second.", "Third.\nin two lines", "It broke."]
    assert found[-1]["event"] == "done"
    assert json.loads(found[-1]["data"]) == {"status": "failed"}


def test_a_client_that_comes_back_goes_on_after_the_last_event_it_had(live: Live) -> None:
    job_id = submitted(live)
    owned = claim(live.sessions, job_id)
    report(live.sessions, owned, "First.", "Second.", "Third.")
    with streamed(live, job_id) as stream:
        found = [next(stream) for _ in range(4)]
    with live.sessions.begin() as session:
        job_leases.fail(session, owned, code="c", message="It broke.")
    with streamed(live, job_id, **{"last-event-id": found[-1]["id"]}) as stream:
        assert texts(list(stream)) == ["Third.", "It broke."]
    with streamed(live, job_id, **{"last-event-id": "ftevent-unknown"}) as stream:
        assert len(texts(list(stream))) == 6
    other = submitted(live)
    with live.sessions() as session:
        [anothers] = events.newest_first(session, other, after=None, limit=1)
    with streamed(live, job_id, **{"last-event-id": anothers.id}) as stream:
        assert len(texts(list(stream))) == 6


def test_another_projects_job_is_not_there(client: TestClient, sessions: Sessions, other_project: Tenant) -> None:
    theirs = create_theirs(sessions, other_project)
    for path in ("events/stream", "metrics"):
        assert client.get(f"{JOBS}/{theirs}/{path}").status_code == 404


def create_theirs(sessions: Sessions, tenant: Tenant) -> str:
    file = add_file(sessions, tenant.id)
    spec: dict[str, Any] = {"base": {"name": "tiny", "family": "sdxl", "source": "/tiny"}, "method": {"type": "mapo"}}
    with sessions.begin() as session:
        return jobs.create(session, jobs.NewJob(tenant.id, spec, file, None)).id


def test_many_followers_share_one_query_and_hold_no_connection(live: Live) -> None:
    """More than the API's connections to the database: others are served meanwhile, and all get every event."""
    job_id = submitted(live)
    owned = claim(live.sessions, job_id)
    count = 45
    following_now = threading.Barrier(count + 1)

    def subscribe() -> list[str]:
        with streamed(live, job_id) as stream:
            found = [next(stream), next(stream)]
            following_now.wait(30)
            return texts(found + list(stream))

    with ThreadPoolExecutor(count) as pool:
        subscribers = [pool.submit(subscribe) for _ in range(count)]
        following_now.wait(30)
        headers = {"authorization": f"Bearer {live.tenant.api_key}"}
        assert httpx.get(f"{live.url}{JOBS}/{job_id}", headers=headers, timeout=5).status_code == 200
        with live.sessions() as session:
            held = session.connection().exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
            )
            assert int(held.scalar_one()) <= 5
        report(live.sessions, owned, "For everyone.")
        with live.sessions.begin() as session:
            job_leases.fail(session, owned, code="c", message="The end.")
        assert {tuple(subscriber.result(30)[2:]) for subscriber in subscribers} == {("For everyone.", "The end.")}


def collected(hub: EventHub, job_id: str, *, between: Any = None) -> list[EventBatch]:
    async def run() -> list[EventBatch]:
        found = []
        async for batch in hub.subscribe(job_id, 0):
            found.append(batch)
            if between is not None:
                await asyncio.to_thread(between, len(found))
        await hub.close()
        return found

    return asyncio.run(run())


def test_a_log_longer_than_one_query_is_sent_whole_and_in_order(
    sessions: Sessions, client: TestClient, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hub, "BATCH", 3)
    job_id = create(client, file_id)["id"]
    owned = claim(sessions, job_id)
    report(sessions, owned, *[f"Number {number}." for number in range(10)])
    with sessions.begin() as session:
        job_leases.fail(session, owned, code="c", message="The end.")
    found = collected(EventHub(sessions, poll_seconds=0.05), job_id)
    reported = [event.message for batch in found for event in batch.events]
    assert reported[2:] == [*[f"Number {number}." for number in range(10)], "The end."]
    assert [batch.ended for batch in found if batch.ended] == [JobStatus.FAILED]


def test_events_between_the_backlog_and_the_live_part_are_neither_lost_nor_sent_twice(
    sessions: Sessions, client: TestClient, file_id: str
) -> None:
    job_id = create(client, file_id)["id"]
    owned = claim(sessions, job_id)

    def between(count: int) -> None:
        if count <= 3:
            report(sessions, owned, f"After {count}.")
        elif count == 4:
            with sessions.begin() as session:
                job_leases.fail(session, owned, code="c", message="The end.")

    found = collected(EventHub(sessions, poll_seconds=0.05), job_id, between=between)
    reported = [event.message for batch in found for event in batch.events]
    assert reported[2:] == ["After 1.", "After 2.", "After 3.", "The end."]


def test_a_job_that_ends_during_a_query_sends_its_last_events_before_its_end(
    sessions: Sessions, client: TestClient, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = create(client, file_id)["id"]
    owned = claim(sessions, job_id)
    read, polls = events.after_each, 0

    def read_and_end(*requested: Any, **named: Any) -> Any:
        nonlocal polls
        polls += 1
        found = read(*requested, **named)
        if polls == 3:  # a look of the watch; the first two are the follower's own
            with sessions.begin() as session:
                job_leases.fail(session, owned, code="c", message="The end.")
        return found

    monkeypatch.setattr(events, "after_each", read_and_end)
    found = collected(EventHub(sessions, poll_seconds=0.05), job_id)
    assert [event.message for batch in found for event in batch.events][2:] == ["The end."]
    assert [batch.ended for batch in found if batch.ended] == [JobStatus.FAILED]


def test_a_query_that_began_before_a_follower_came_sends_it_nothing_twice(
    sessions: Sessions, client: TestClient, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch's first look answers as of the log's beginning, as one does that was under way."""
    job_id = create(client, file_id)["id"]
    owned = claim(sessions, job_id)
    hub = EventHub(sessions, poll_seconds=0.05)
    read, polls = hub._read, 0

    def late(seen: dict[str, int]) -> Any:
        nonlocal polls
        polls += 1
        return read(dict.fromkeys(seen, 0) if polls > 2 and polls % 2 else seen)  # two are the follower's own

    monkeypatch.setattr(hub, "_read", late)

    def between(count: int) -> None:
        if count <= 3:
            report(sessions, owned, f"After {count}.")
        elif count == 4:
            with sessions.begin() as session:
                job_leases.fail(session, owned, code="c", message="The end.")

    reported = [event.message for batch in collected(hub, job_id, between=between) for event in batch.events]
    assert polls > 3
    assert reported[2:] == ["After 1.", "After 2.", "After 3.", "The end."]


def test_a_client_that_does_not_read_is_cut_off_and_nobody_else(
    sessions: Sessions, client: TestClient, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hub, "BACKLOG", 2)
    job_id = create(client, file_id)["id"]
    owned = claim(sessions, job_id)

    async def run() -> EventBatch:
        hub = EventHub(sessions, poll_seconds=0.02)
        stalled = hub.subscribe(job_id, 0)
        await anext(stalled)
        upcoming = asyncio.ensure_future(anext(stalled))
        for number in range(5):
            await asyncio.to_thread(report, sessions, owned, f"Number {number}.")
            await asyncio.sleep(0.2)
            if number == 0:
                await upcoming
        while not (latest := await anext(stalled)).lagged:
            pass
        await hub.close()
        return latest

    assert asyncio.run(run()).lagged


def test_a_silent_stream_stays_alive(
    sessions: Sessions, client: TestClient, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.1)
    job_id = create(client, file_id)["id"]

    async def run() -> list[bytes]:
        hub = EventHub(sessions, poll_seconds=0.05)
        found = []
        async for part in event_stream.stream(hub, job_id, 0):
            found.append(part)
            if part == event_stream.KEEP_ALIVE:
                break
        await hub.close()
        return found

    assert asyncio.run(run())[-1] == event_stream.KEEP_ALIVE
