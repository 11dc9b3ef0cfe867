"""Real Celery workers: how they end, what ends with them, and that messages are only hints."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests import servers
from tests.api.polling import until
from tests.store.rows import add_generation, read_generation, read_job
from tests.worker.celery_worker import StartWorker
from tests.worker.conftest import NewJob
from tests.worker.watching import (
    attempts_left,
    first_checkpoint,
    found,
    resumed_from,
    states,
    status_becomes,
    trainer_of,
)
from worker.dispatcher.dispatcher import tick
from worker.resources import Resources

pytestmark = pytest.mark.integration


def test_sigterm_gives_the_job_back_with_a_checkpoint_and_kill_9_takes_everything_along(
    resources: Resources, start_worker: StartWorker, new_job: NewJob, tmp_path: Path
) -> None:
    sessions = resources.sessions
    job_id = new_job(steps=100_000, every=5)

    first = start_worker()
    assert resources.hints.train(job_id)
    step = first_checkpoint(sessions, job_id)
    family = first.children(recursive=True)
    assert len(family) >= 2  # its pool process and the trainer
    first.send_signal(signal.SIGTERM)
    assert first.wait(resources.settings.grace_seconds) == 0
    said = list(filter(None, (tmp_path / "worker.log").read_text().splitlines()))
    said.remove("worker: Warm shutdown (MainProcess)")  # Celery writes it past all logging, in its signal handler
    assert "celery.apps.worker" in {json.loads(line).get("logger") for line in said}
    job = read_job(sessions, job_id)
    assert (job.status, job.crashes) == ("queued", 0)
    until(lambda: not any(one.is_running() for one in family), seconds=10)
    assert attempts_left(resources.settings.home) == []

    second = start_worker()
    assert resources.hints.train(job_id)
    until(lambda: len(resumed_from(sessions, job_id)) == 2, seconds=90)
    assert resumed_from(sessions, job_id)[1] >= step
    assert trainer_of(job_id) is not None
    family = second.children(recursive=True)
    second.kill()
    second.wait()
    until(lambda: not any(one.is_running() for one in family), seconds=10)
    assert trainer_of(job_id) is None
    assert read_job(sessions, job_id).status == "running"
    until(lambda: job_id in tick(resources).jobs, seconds=resources.settings.lease_seconds + 2)
    job = read_job(sessions, job_id)
    assert (job.status, job.crashes) == ("queued", 1)


def test_queued_jobs_survive_a_flushed_broker_and_twenty_messages_run_a_job_once(
    resources: Resources, start_worker: StartWorker, new_job: NewJob, broker_url: str
) -> None:
    job_id = new_job()
    assert resources.hints.train(job_id)
    with servers.broker_client(broker_url) as client:
        client.flushall()
        assert client.llen("train") == 0
        assert tick(resources).jobs == [job_id]
        for _ in range(19):
            resources.hints.train(job_id)
        assert client.llen("train") == 20
        start_worker()
        status_becomes(resources.sessions, job_id, "succeeded")
        until(lambda: client.llen("train") == 0, seconds=20)
    assert states(resources.sessions, job_id) == ["queued", "running", "succeeded"]
    assert read_job(resources.sessions, job_id).attempt == 1
    assert found(lambda: attempts_left(resources.settings.home)) == []


def test_a_generation_worker_generates_what_its_queue_names_and_gives_it_back_at_sigterm(
    resources: Resources, start_worker: StartWorker, project_id: str, tiny_base: Path
) -> None:
    base = {"name": "tiny", "family": "sdxl", "source": str(tiny_base)}
    short = add_generation(resources.sessions, project_id, base=base)
    long = add_generation(resources.sessions, project_id, base=base, steps=200, n=10, width=512, height=512)
    worker = start_worker("draw")
    assert resources.hints.generate(short)
    until(lambda: read_generation(resources.sessions, short).status == "succeeded", seconds=90)
    assert resources.hints.generate(long)
    program = found(lambda: trainer_of(long))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(resources.settings.grace_seconds) == 0
    assert not program.is_running()
    row = read_generation(resources.sessions, long)
    assert (row.status, row.crashes, row.attempt) == ("queued", 0, 1)
    assert attempts_left(resources.settings.home) == []


def test_a_worker_gets_hints_of_jobs_that_its_memory_holds(
    resources: Resources, start_worker: StartWorker, broker_url: str
) -> None:
    for memory_gib in (None, 16, 24):
        assert resources.hints.train("ftjob-nobody", memory_gib)
    with servers.broker_client(broker_url) as client:
        start_worker(worker_memory_gib=16)
        until(lambda: client.llen("train") + client.llen("train-16g") == 0, seconds=30)
        assert client.llen("train-24g") == 1
        start_worker()
        until(lambda: client.llen("train-24g") == 0, seconds=30)
