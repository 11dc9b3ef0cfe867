"""A worker that stands still, or cannot reach PostgreSQL, for longer than its lease: another does its job, and whatever
it still has to say when it comes back is refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, Interval, func, select, type_coerce

from store.database import Sessions
from store.hints import Hints
from store.tables.file import File
from store.tables.job import Checkpoint, Job, JobEvent
from tests.api.polling import until
from tests.faults.checker import violations
from tests.faults.fleet import is_trainer
from tests.faults.proxy import Proxy, in_front_of
from tests.store.rows import read_job
from tests.worker.celery_worker import StartWorker
from tests.worker.conftest import NewJob
from tests.worker.watching import first_checkpoint, found, resumed_from, states, status_becomes, trainer_of
from worker.dispatcher.dispatcher import tick
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration


@pytest.fixture
def proxied(engine: Engine) -> Iterator[tuple[Proxy, str]]:
    with in_front_of(engine.url.render_as_string(hide_password=False)) as proxied:
        yield proxied


def without_trainer(worker: psutil.Process) -> list[psutil.Process]:
    """The worker and its pool process, which may be stopped while the trainer goes on."""
    return [one for one in [worker, *worker.children(recursive=True)] if not is_trainer(one)]


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for one in processes:
        one.send_signal(number)


def written(sessions: Sessions) -> tuple[int, ...]:
    """How many rows there are of everything that a worker writes."""
    with sessions() as session:
        return tuple(
            session.scalar(select(func.count()).select_from(table)) or 0 for table in (JobEvent, Checkpoint, File)
        )


def finished_by_another(resources: Resources, home: Path, job_id: str) -> Job:
    """The dispatcher takes the job back once its lease is over, and a worker on another host ends it."""
    until(lambda: job_id in tick(resources).jobs, seconds=resources.settings.lease_seconds + 5)
    settings = resources.settings.model_copy(update={"home": home / "other-host"})
    supervise(replace(resources, settings=settings, worker="another"), job_id, stopping=lambda: False)
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt, job.worker) == ("succeeded", 2, "another")
    return job


def check_that_nothing_was_changed(resources: Resources, job: Job, before: tuple[int, ...]) -> None:
    after = read_job(resources.sessions, job.id)
    assert written(resources.sessions) == before
    assert (after.status, after.attempt, after.result_files) == (job.status, job.attempt, job.result_files)
    assert states(resources.sessions, job.id) == ["queued", "running", "queued", "running", "succeeded"]
    with resources.sessions() as session:
        assert violations(session, all_ended=False, of=[job.id]) == []


def lost(log: Path) -> bool:
    return "job.lease_lost" in log.read_text()


def test_a_worker_stopped_past_its_lease_is_refused_every_write_when_it_goes_on(
    resources: Resources, start_worker: StartWorker, new_job: NewJob, tmp_path: Path
) -> None:
    sessions = resources.sessions
    job_id = new_job(steps=60, every=10)
    worker = start_worker()
    assert resources.hints.train(job_id)
    step = first_checkpoint(sessions, job_id)
    trainer = found(lambda: trainer_of(job_id))
    stopped = without_trainer(worker)
    send(stopped, signal.SIGSTOP)
    job = finished_by_another(resources, tmp_path, job_id)
    assert resumed_from(sessions, job_id)[1] >= step
    # Its own trainer has long written an adapter by now, and said so to nobody.
    until(lambda: trainer.status() == psutil.STATUS_ZOMBIE or not trainer.is_running(), seconds=60)
    before = written(sessions)
    send(stopped, signal.SIGCONT)
    until(lambda: lost(tmp_path / "worker.log"), seconds=20)
    until(lambda: not trainer.is_running(), seconds=20)
    check_that_nothing_was_changed(resources, job, before)
    following = new_job()
    assert resources.hints.train(following)
    assert status_becomes(sessions, following, "succeeded").attempt == 1


def test_a_worker_cut_off_from_postgresql_ends_its_trainer_before_its_lease_is_over(
    resources: Resources, start_worker: StartWorker, new_job: NewJob, proxied: tuple[Proxy, str], tmp_path: Path
) -> None:
    proxy, url = proxied
    sessions = resources.sessions
    job_id = new_job(steps=100_000, every=5)
    start_worker(database_url=url)
    assert resources.hints.train(job_id)
    first_checkpoint(sessions, job_id)
    trainer = found(lambda: trainer_of(job_id))
    with proxy.silent():
        until(lambda: not trainer.is_running(), seconds=resources.settings.lease_seconds)
        with sessions() as session:
            left = session.scalar(
                select(type_coerce(Job.lease_expires_at - func.clock_timestamp(), Interval)).where(Job.id == job_id)
            )
        assert left is not None
        assert left.total_seconds() > 0
        assert read_job(sessions, job_id).status == "running"
        # Without a hint: the worker itself would take the job again as soon as it is back.
        mute = replace(resources, hints=Hints(f"redis+socket://{tmp_path}/nowhere.sock"))
        until(lambda: job_id in tick(mute).jobs, seconds=resources.settings.lease_seconds)
        before = written(sessions)
    until(lambda: lost(tmp_path / "worker.log"), seconds=20)
    job = read_job(sessions, job_id)
    assert (job.status, job.attempt, job.crashes) == ("queued", 1, 1)
    assert written(sessions) == before


def test_an_adapter_that_was_ready_while_its_worker_was_cut_off_is_not_committed_late(
    resources: Resources, start_worker: StartWorker, new_job: NewJob, proxied: tuple[Proxy, str], tmp_path: Path
) -> None:
    """What the worker sends into the silence arrives when it is over: another has ended the job by then."""
    proxy, url = proxied
    job_id = new_job(steps=60, every=10)
    start_worker(database_url=url)
    assert resources.hints.train(job_id)
    first_checkpoint(resources.sessions, job_id)
    with proxy.silent():
        job = finished_by_another(resources, tmp_path, job_id)
        before = written(resources.sessions)
    until(lambda: lost(tmp_path / "worker.log"), seconds=20)
    check_that_nothing_was_changed(resources, job, before)
