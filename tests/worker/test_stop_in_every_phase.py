"""A worker that is stopped, and a user who pauses, meet the trainer in whatever phase it is: the job goes on from
there with nothing held against it, and ends as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from store.jobs import jobs
from tests.api.polling import until
from tests.faults.checker import violations
from tests.faults.verdict import weights_of
from tests.store.rows import read_job
from tests.worker.celery_worker import StartWorker
from tests.worker.conftest import NewJob, Supervised
from tests.worker.holding import Holding, holding
from tests.worker.watching import attempts_left, found, states, trainer_of
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration
PATIENCE = 60.0  # seconds
# In the order in which a run comes to them; after "validating 2" it goes on from its checkpoint.
PHASES = (
    "loading 1",
    "drawing 1",
    "caching 1",
    "validating 1",
    "training 1",
    "validating 2",
    "sampling 1",
)
LAST = "exporting 1"  # which is not broken off: the adapter is whole in a moment, and counts


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Holding:
    return holding(tmp_path / "holding", monkeypatch)


def new(new_job: NewJob, chosen_only: bytes) -> str:
    return new_job(data=chosen_only, steps=6, every=3, sampling={"steps": 1, "prompts": ["a red square"]})


def ended_like_an_undisturbed_one(resources: Resources, project_id: str, job_id: str, other_id: str) -> bool:
    with resources.sessions() as session:
        assert violations(session, all_ended=False, of=[job_id, other_id]) == []
        disturbed, other = (jobs.get(session, project_id, one) for one in (job_id, other_id))
        assert (disturbed.status, disturbed.crashes) == ("succeeded", 0)
        return weights_of(session, resources.blobs, disturbed) == weights_of(session, resources.blobs, other)


def test_a_worker_that_is_to_end_gives_the_job_back_whatever_its_trainer_is_at(
    resources: Resources,
    project_id: str,
    start_worker: StartWorker,
    new_job: NewJob,
    chosen_only: bytes,
    held: Holding,
) -> None:
    job_id = new(new_job, chosen_only)
    for phase in (*PHASES, LAST):
        held.hold(phase)
        worker = start_worker()
        assert resources.hints.train(job_id)
        until(held.holds, seconds=PATIENCE)
        family = worker.children(recursive=True)
        worker.terminate()
        assert worker.wait(resources.settings.grace_seconds) == 0, phase
        job = read_job(resources.sessions, job_id)
        becomes = "succeeded" if phase == LAST else "queued"
        assert (job.status, job.crashes, job.lease_expires_at) == (becomes, 0, None), phase
        assert not [one for one in family if is_running(one)], phase
        assert attempts_left(resources.settings.home) == [], phase
    held.hold("nowhere")
    assert read_job(resources.sessions, job_id).attempt == len(PHASES) + 1
    undisturbed = new(new_job, chosen_only)
    supervise(resources, undisturbed, stopping=lambda: False)
    assert ended_like_an_undisturbed_one(resources, project_id, job_id, undisturbed)


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_pause_and_a_cancel_take_effect_whatever_the_trainer_is_at(
    resources: Resources,
    project_id: str,
    supervised: Supervised,
    new_job: NewJob,
    chosen_only: bytes,
    held: Holding,
) -> None:
    job_id = new(new_job, chosen_only)
    for phase in PHASES:
        held.hold(phase)
        ended = supervised.run(job_id)
        until(held.holds, seconds=PATIENCE)
        with resources.sessions.begin() as session:
            jobs.pause(session, project_id, job_id)
        ended.result(PATIENCE)
        assert read_job(resources.sessions, job_id).status == "paused", phase
        with resources.sessions.begin() as session:
            jobs.resume(session, project_id, job_id)
    held.hold("validating 1")
    ended = supervised.run(job_id)
    until(held.holds, seconds=PATIENCE)
    trainer = found(lambda: trainer_of(job_id))
    with resources.sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    ended.result(PATIENCE)
    assert not is_running(trainer)
    assert states(resources.sessions, job_id)[-2:] == ["running", "cancelled"]
