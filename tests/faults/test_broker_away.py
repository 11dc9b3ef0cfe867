"""The broker goes and comes back: jobs that were posted meanwhile run, and workers take hints again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from cli.local.embedded import Valkey
from store.blobs.blobs import Blobs
from store.files import files
from store.files.files import NewFile
from store.hints import Hints
from store.settings import Settings
from tests.api.polling import until
from tests.api.serving import serving
from tests.store.rows import read_job
from tests.worker.celery_worker import workers
from tests.worker.watching import states
from worker.dispatcher.dispatcher import tick
from worker.resources import Resources

pytestmark = pytest.mark.integration


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    yield server
    server.stop()


def waiting(valkey: Valkey) -> int:
    with Redis(unix_socket_path=valkey.url.removeprefix("redis+socket://")) as client:
        return int(client.llen("train"))


def listens(valkey: Valkey) -> bool:
    """Whether a worker waits for a hint: one that has a task asks the broker for nothing."""
    with Redis(unix_socket_path=valkey.url.removeprefix("redis+socket://")) as client:
        return int(client.info("clients")["blocked_clients"]) == 1


def test_a_job_that_is_posted_while_the_broker_is_down_runs_once_it_is_back(
    tmp_path: Path, postgres_url: str, valkey: Valkey
) -> None:
    with serving(tmp_path, postgres_url, valkey.url) as live:
        database_url = live.sessions.kw["bind"].url.render_as_string(hide_password=False)
        settings = Settings(home=tmp_path, database_url=database_url, broker_url=valkey.url, republish_seconds=0.5)
        resources = Resources(
            settings, live.sessions, Blobs(settings.effective_blob_url), Hints(valkey.url), "dispatcher"
        )
        with live.sessions.begin() as session:
            # Its blob is gone, so that the attempt is over soon.
            new = NewFile(live.tenant.id, "pairs.zip", "fine-tune", 3, "0" * 64)
            file_id = files.create(session, new, status="processed").id
        with workers(settings, tmp_path / "worker.log") as start:
            start()
            assert resources.hints.train("ftjob-nobody")
            until(lambda: waiting(valkey) == 0, seconds=60)  # the worker was there before the broker went
            valkey.stop()
            answer = httpx.post(
                f"{live.url}/v1/fine_tuning/jobs",
                json={"model": "tiny", "training_file": file_id},
                headers={"authorization": f"Bearer {live.tenant.api_key}"},
                timeout=60,
            )
            assert (answer.status_code, answer.json()["status"]) == (200, "queued")
            assert httpx.get(f"{live.url}/readyz", timeout=60).json()["checks"]["broker"] == "no answer"
            job_id = answer.json()["id"]
            assert tick(resources).jobs == [job_id]
            assert valkey.ensure_running()

            def runs() -> bool:
                tick(resources)
                return read_job(live.sessions, job_id).attempt == 1

            until(runs, seconds=120)
            until(lambda: read_job(live.sessions, job_id).status != "running", seconds=60)
        assert states(live.sessions, job_id)[:2] == ["queued", "running"]
        assert read_job(live.sessions, job_id).attempt == 1


def test_a_worker_takes_hints_again_after_one_that_it_could_not_acknowledge(
    tmp_path: Path, database_url: str, valkey: Valkey
) -> None:
    settings = Settings(home=tmp_path, database_url=database_url, broker_url=valkey.url)
    hints, log = Hints(valkey.url), tmp_path / "worker.log"

    def received(hint: str) -> bool:
        return hint in log.read_text()

    with workers(settings, log) as start:
        worker = start()
        assert hints.train("ftjob-first")
        until(lambda: received("ftjob-first") and listens(valkey), seconds=60)
        (pool_process,) = worker.children()
        pool_process.suspend()  # what acknowledges a hint is that the pool has begun it
        assert hints.train("ftjob-second")
        until(lambda: waiting(valkey) == 0, seconds=60)
        assert hints.train("ftjob-third")
        time.sleep(0.5)
        assert waiting(valkey) == 1  # a worker that has a hint leaves the next to others
        valkey.stop()
        pool_process.resume()
        until(lambda: received("ftjob-second"), seconds=60)
        assert valkey.ensure_running()
        until(lambda: received("ftjob-third"), seconds=60)


def test_a_worker_that_starts_before_its_broker_waits_for_it(tmp_path: Path, database_url: str, valkey: Valkey) -> None:
    settings = Settings(home=tmp_path, database_url=database_url, broker_url=valkey.url)
    hints, log = Hints(valkey.url), tmp_path / "worker.log"
    valkey.stop()
    with workers(settings, log) as start:
        worker = start()
        until(lambda: "Cannot connect" in log.read_text(), seconds=60)
        assert valkey.ensure_running()
        assert hints.train("ftjob-first")
        until(lambda: "ftjob-first" in log.read_text(), seconds=60)
        assert worker.is_running()
