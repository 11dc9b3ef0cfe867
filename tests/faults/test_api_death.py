"""An API process that dies after its commit and before its hint is out."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from store.blobs.blobs import Blobs
from store.files import files
from store.files.files import NewFile
from store.hints import Hints
from store.settings import Settings
from store.tables.job import Job
from tests import servers
from tests.api.polling import until
from tests.api.serving import Live, serving
from tests.faults.proxy import Proxy
from worker.dispatcher.dispatcher import tick
from worker.resources import Resources

pytestmark = pytest.mark.integration
JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
def broker(broker_url: str) -> Iterator[Proxy]:
    proxy = Proxy(Path(broker_url.removeprefix("redis+socket://")))
    yield proxy
    proxy.close()


def jobs(live: Live) -> list[Job]:
    with live.sessions() as session:
        return list(session.scalars(select(Job)))


def dispatcher(live: Live, broker_url: str, home: Path) -> Resources:
    settings = Settings(home=home, broker_url=broker_url)
    return Resources(settings, live.sessions, Blobs(settings.effective_blob_url), Hints(broker_url), "dispatcher")


def create(live: Live, file_id: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {live.tenant.api_key}", "idempotency-key": "one"}
    return httpx.post(f"{live.url}{JOBS}", json={"model": "tiny", "training_file": file_id}, headers=headers)


def test_a_job_whose_api_died_between_commit_and_hint_is_sent_by_the_dispatcher_once(
    tmp_path: Path, postgres_url: str, broker_url: str, broker: Proxy
) -> None:
    with serving(tmp_path, postgres_url, f"redis://127.0.0.1:{broker.port}") as live, ThreadPoolExecutor(1) as user:
        new = NewFile(live.tenant.id, "pairs.zip", "fine-tune", 3, "0" * 64)
        with live.sessions.begin() as session:
            file_id = files.create(session, new, status="processed").id
        with broker.silent():
            answer = user.submit(create, live, file_id)
            until(lambda: jobs(live) != [])
            os.kill(live.pid, signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                answer.result()
        [job] = jobs(live)
        assert (job.status, job.published_at) == ("queued", None)
        parts = dispatcher(live, broker_url, tmp_path)
        with servers.broker_client(broker_url) as client:
            client.flushall()  # what the dead process had sent into the silence
            assert tick(parts).jobs == [job.id]
            assert client.llen("train") == 1
            assert tick(parts).jobs == []
