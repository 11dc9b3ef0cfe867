"""Several API processes on one port: they agree, replace one that dies, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from store.tenants import api_keys, projects
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS
from tests.api.polling import until
from tests.api.serving import Live, serving

pytestmark = pytest.mark.integration
PROCESSES = 2
STREAMS = 4
ANSWERED = re.compile(r'^pairtune_http_request_duration_seconds_count\{.*route="/healthz".*\} (\S+)$', re.M)
IN_FLIGHT = re.compile(r"^pairtune_http_requests_in_flight (\S+)$", re.M)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("pair")
    with serving(home, postgres_url, valkey_url, api_processes=PROCESSES, streams=STREAMS) as server:
        until(lambda: len(children(server.pid)) == PROCESSES, seconds=60)
        until(lambda: server.log.read_text().count("Application startup complete") == PROCESSES, seconds=60)
        yield server


def children(parent: int) -> set[int]:
    """The processes that serve: the parent also has one that tracks resources."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(one) for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()}


def is_running(process_id: int) -> bool:
    path = Path(f"/proc/{process_id}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def get(server: Live, path: str) -> httpx.Response:
    """On a connection of its own, which any of the processes may take."""
    headers = {"authorization": f"Bearer {server.tenant.api_key}"}
    return httpx.get(server.url + path, headers=headers, timeout=30)


def together(server: Live, paths: list[str]) -> list[httpx.Response]:
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda path: get(server, path), paths))


def answered(server: Live) -> set[float]:
    """What a few scrapes, of any of the processes, say about the requests for /healthz."""
    scraped = together(server, ["/metrics"] * 10)
    return {sum(float(count) for count in ANSWERED.findall(one.text)) for one in scraped}


def test_whichever_process_is_scraped_its_figures_are_those_of_all(pair: Live) -> None:
    [before] = answered(pair)
    assert {one.status_code for one in together(pair, ["/healthz"] * 40)} == {200}
    until(lambda: answered(pair) == {before + 40})


def test_they_count_one_rate_together(pair: Live) -> None:
    with pair.sessions.begin() as session:
        own = {"requests_per_minute": 1, "requests_burst": 20}
        projects.set_limits(session, pair.tenant.name, own=own, dropped=())
    try:
        allowed = [one for one in together(pair, ["/v1/models"] * 60) if one.status_code == 200]
    finally:
        with pair.sessions.begin() as session:
            projects.set_limits(session, pair.tenant.name, own={}, dropped=set(own))
    assert 20 - PROCESSES <= len(allowed) <= 20 + 1


def test_one_that_dies_is_replaced_and_its_requests_no_longer_count(pair: Live) -> None:
    killed = min(children(pair.pid))
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(children(pair.pid) - {killed}) == PROCESSES, seconds=60)
    until(lambda: pair.log.read_text().count("Application startup complete") == PROCESSES + 1, seconds=60)
    assert {one.status_code for one in together(pair, ["/readyz"] * 20)} == {200}
    found = IN_FLIGHT.search(get(pair, "/metrics").text)
    assert found is not None
    assert float(found[1]) >= 1  # the scrape itself


def test_a_keys_event_streams_are_capped_over_all_processes_and_come_back(pair: Live) -> None:
    file = add_file(pair.sessions, pair.tenant.id)
    body = {"model": "tiny", "training_file": file.id}
    key = {"authorization": f"Bearer {pair.tenant.api_key}"}
    job_id = httpx.post(f"{pair.url}{JOBS}", json=body, headers=key).json()["id"]
    path = f"{pair.url}{JOBS}/{job_id}/events/stream"
    with pair.sessions.begin() as session:
        project = api_keys.ensure_project(session, pair.tenant.name)
        other = {"authorization": f"Bearer {api_keys.create(session, project, 'other')}"}

    def opened(headers: dict[str, str]) -> int:
        client = stack.enter_context(httpx.Client(timeout=30))
        return stack.enter_context(client.stream("GET", path, headers=headers)).status_code

    with ExitStack() as stack:
        assert [opened(key) for _ in range(STREAMS)] == [200] * STREAMS
        assert [opened(key) for _ in range(2 * PROCESSES)] == [429] * 2 * PROCESSES
        assert httpx.get(path, headers=key).json()["error"]["code"] == "too_many_streams"
        assert opened(other) == 200

    def again() -> int:
        with httpx.Client(timeout=30) as client, client.stream("GET", path, headers=key) as answer:
            return answer.status_code

    until(lambda: again() == 200)


def test_of_a_create_sent_to_all_at_once_one_job_comes(pair: Live) -> None:
    headers = {"authorization": f"Bearer {pair.tenant.api_key}", "idempotency-key": "one"}
    body = {"name": "foxes"}
    with ThreadPoolExecutor(20) as pool:
        posts = [pool.submit(httpx.post, f"{pair.url}/v1/datasets", json=body, headers=headers) for _ in range(20)]
        answers = [post.result() for post in posts]
    created = {answer.json()["id"] for answer in answers if answer.status_code == 200}
    assert len(created) == 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    with pair.sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM datasets")) == 1


def test_when_the_parent_is_killed_its_processes_end(tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    with serving(tmp_path, postgres_url, valkey_url, api_processes=PROCESSES) as server:
        until(lambda: server.log.read_text().count("Application startup complete") == PROCESSES, seconds=60)
        serving_now = children(server.pid)
        assert len(serving_now) == PROCESSES
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not any(is_running(one) for one in serving_now), seconds=30)
