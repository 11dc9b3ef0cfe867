"""How soon the loss of each part is made good, with a dispatcher at work, by the settings that say so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from store.job_status import JobStatus
from tests import servers
from tests.api.polling import until
from tests.store.rows import read_job
from tests.worker.celery_worker import StartWorker
from tests.worker.conftest import NewJob, Supervised
from tests.worker.watching import first_checkpoint, found, resumed_from, trainer_of
from worker.dispatcher import dispatcher
from worker.resources import Resources

pytestmark = [pytest.mark.integration, pytest.mark.serial]
NOTICED = 2.0  # seconds
LATE = 1.0  # for a test that is not served at once on a busy machine
EVERY = 10  # steps


@pytest.fixture
def dispatched(resources: Resources) -> Iterator[Resources]:
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.tick_until, args=(stop, resources))
    thread.start()
    yield resources
    stop.set()
    thread.join()


def left_running(resources: Resources, job_id: str, *, within: float) -> float:
    """Seconds until the job is no longer running."""
    started = time.monotonic()
    until(lambda: read_job(resources.sessions, job_id).status != JobStatus.RUNNING, seconds=within)
    return time.monotonic() - started


def test_a_dead_trainer_is_noticed_in_two_seconds_and_no_more_is_done_again_than_a_checkpoints_interval(
    resources: Resources, supervised: Supervised, new_job: NewJob
) -> None:
    job_id = new_job(steps=400, every=EVERY)
    ended = supervised.run(job_id)
    first_checkpoint(resources.sessions, job_id)
    trainer = found(lambda: trainer_of(job_id))
    trainer.kill()
    assert left_running(resources, job_id, within=NOTICED + LATE) < NOTICED + LATE
    ended.result()
    step = int((read_job(resources.sessions, job_id).progress or {})["step"])
    supervised.run(job_id)
    until(lambda: len(resumed_from(resources.sessions, job_id)) == 2, seconds=60)
    assert step - resumed_from(resources.sessions, job_id)[1] <= EVERY


def test_the_next_attempt_of_a_dead_trainers_job_starts_in_two_seconds_without_a_dispatcher(
    resources: Resources, start_worker: StartWorker, new_job: NewJob
) -> None:
    job_id = new_job(steps=100_000, every=EVERY)
    start_worker()
    assert resources.hints.train(job_id)
    step = first_checkpoint(resources.sessions, job_id)
    trainer = found(lambda: trainer_of(job_id))
    trainer.kill()
    started = time.monotonic()
    until(lambda: read_job(resources.sessions, job_id).attempt == 2, seconds=60)
    assert time.monotonic() - started < NOTICED + LATE
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.crashes) == (JobStatus.RUNNING, 1)
    until(lambda: len(resumed_from(resources.sessions, job_id)) == 2, seconds=60)
    assert resumed_from(resources.sessions, job_id)[1] >= step


def test_a_dead_workers_job_is_queued_within_a_lease_and_a_tick(
    dispatched: Resources, start_worker: StartWorker, new_job: NewJob
) -> None:
    settings = dispatched.settings
    job_id = new_job(steps=100_000, every=EVERY)
    worker = start_worker()
    first_checkpoint(dispatched.sessions, job_id)
    family = worker.children(recursive=True)
    worker.kill()
    took = left_running(dispatched, job_id, within=60)
    assert took <= settings.lease_seconds + settings.dispatch_seconds + LATE
    until(lambda: not any(one.is_running() for one in family))


def test_a_lost_message_is_sent_again_within_the_time_for_it(
    dispatched: Resources, new_job: NewJob, broker_url: str
) -> None:
    settings = dispatched.settings
    new_job()
    with servers.broker_client(broker_url) as client:
        until(lambda: client.llen("train") == 1)
        client.flushall()
        started = time.monotonic()
        until(lambda: client.llen("train") == 1, seconds=60)
    assert time.monotonic() - started <= settings.republish_seconds + settings.dispatch_seconds + LATE
