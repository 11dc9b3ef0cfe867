"""One job with the real trainer on a tiny base, and everything that may happen to it on the way."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from store.database import Sessions, open_engine, open_sessions
from store.files import files
from store.hints import Hints
from store.jobs import job_leases, jobs
from store.tables.file import File
from store.tables.job import Job
from tests import servers
from tests.api.polling import until
from tests.store.rows import queued_job, read_events, read_job, running_job
from tests.worker.conftest import NewJob, Supervised
from tests.worker.watching import attempts_left, first_checkpoint, found, reported, resumed_from, states, trainer_of
from worker.resources import Resources
from worker.runtime.publish import publish_jobs
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration


def results(resources: Resources, job: Job) -> dict[str, File]:
    with resources.sessions() as session:
        return {file.filename: file for file in files.by_ids(session, job.result_files)}


def test_a_job_ends_with_result_files_whose_bytes_match_their_digests(
    resources: Resources, supervised: Supervised, new_job: NewJob
) -> None:
    job_id = new_job()
    supervised.run(job_id).result()
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.error, job.attempt) == ("succeeded", None, 1)
    made = results(resources, job)
    assert "pytorch_lora_weights.safetensors" in made
    for file in made.values():
        content = resources.blobs.read(file.sha256)
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.bytes)
    with resources.sessions() as session:
        checkpoints = jobs.checkpoints(session, job_id, after=None, limit=10)
    assert [checkpoint.step for checkpoint in checkpoints] == [6, 3]
    assert checkpoints[0].metrics["full_valid_loss"] == checkpoints[0].metrics["objective"]
    lines = [event.data or {} for event in read_events(resources.sessions, job_id)]
    assert [line["step"] for line in lines if line.get("event") == "progress"][-1] == 6
    assert job.progress is not None  # the last step, or a later phase that takes more than a second
    assert job.progress.get("step", 6) == 6
    assert states(resources.sessions, job_id) == ["queued", "running", "succeeded"]
    assert attempts_left(resources.settings.home) == []


def test_a_job_beyond_what_its_project_may_run_stays_queued(resources: Resources, project_id: str) -> None:
    running_job(resources.sessions, project_id)
    waiting = queued_job(resources.sessions, project_id)
    limited = replace(resources, settings=resources.settings.model_copy(update={"quota_running_jobs": 1}))
    supervise(limited, waiting, stopping=lambda: False)
    job = read_job(resources.sessions, waiting)
    assert (job.status, job.attempt) == ("queued", 0)


def test_a_hint_for_one_job_runs_the_job_whose_turn_it_is(resources: Resources, new_job: NewJob) -> None:
    """So that a fair order holds whichever hint arrives first; there is one for each job."""
    first, second = new_job(), new_job()
    with resources.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == second).values(priority=1))
    stopped = {"stopping": lambda: True}  # gives a job back as soon as it has it
    supervise(resources, first, **stopped)
    assert [read_job(resources.sessions, job_id).attempt for job_id in (first, second)] == [0, 1]


def test_the_trainer_gets_none_of_the_deployments_secrets(
    resources: Resources, supervised: Supervised, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("PAIRTUNE_WEBHOOKS_KEY", "PAIRTUNE_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "a secret of 32 characters at least")
    job_id = new_job(steps=60)
    ended = supervised.run(job_id)
    given = found(lambda: trainer_of(job_id)).environ()
    assert given.keys().isdisjoint(secrets)
    assert "PATH" in given
    ended.result()
    assert read_job(resources.sessions, job_id).status == "succeeded"


def test_a_killed_trainer_is_started_again_and_goes_on_from_the_stored_checkpoint(
    resources: Resources, supervised: Supervised, new_job: NewJob
) -> None:
    job_id = new_job(steps=60)
    ended = supervised.run(job_id)
    step = first_checkpoint(resources.sessions, job_id)
    found(lambda: trainer_of(job_id)).kill()
    ended.result()
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.crashes) == ("queued", 1)
    assert "signal SIGKILL" in read_events(resources.sessions, job_id)[-1].message
    supervised.run(job_id).result()
    assert read_job(resources.sessions, job_id).status == "succeeded"
    first, second = resumed_from(resources.sessions, job_id)
    assert first == 0
    assert second >= step


def test_a_trainer_that_always_dies_fails_the_job_at_the_cap_with_its_last_words(
    resources: Resources, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = new_job()
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # the interpreter ends before its first line
    for expected in ("queued", "queued", "failed"):
        supervise(resources, job_id, stopping=lambda: False)
        assert read_job(resources.sessions, job_id).status == expected
    error = read_job(resources.sessions, job_id).error
    assert error is not None
    assert error["code"] == "trainer_crashed"
    assert "Gave up after 3 crashes. The trainer ended with exit code 1." in error["message"]
    assert "Fatal Python error" in error["message"]
    assert states(resources.sessions, job_id).count("failed") == 1


def test_a_trainer_that_is_refused_main_memory_fails_the_job_and_says_so(
    resources: Resources, supervised: Supervised, new_job: NewJob
) -> None:
    job_id = new_job(steps=200, every=20)
    ended = supervised.run(job_id)
    first_checkpoint(resources.sessions, job_id)
    trainer = found(lambda: trainer_of(job_id))
    most = trainer.memory_info().vms  # what it has, and no more
    resource.prlimit(trainer.pid, resource.RLIMIT_AS, (most, most))
    ended.result()
    job = read_job(resources.sessions, job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "out_of_host_memory"), job.error["message"]
    assert "main memory" in job.error["message"]


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory; whoever writes a process's number into the file puts it in."""
    root = Path("/sys/fs/cgroup/memory")
    root, limit = (root, "memory.limit_in_bytes") if root.exists() else (root.parent, "memory.max")
    group = root / f"pairtune-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(64 * 2**20))
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    yield group / "cgroup.procs"
    group.rmdir()


def test_a_trainer_that_the_kernel_ends_for_lack_of_memory_is_distinguished_from_one_that_was_killed(
    resources: Resources, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_group: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, pathlib\npathlib.Path({str(small_group)!r}).write_text(str(os.getpid()))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job_id = new_job()
    for expected in ("queued", "queued", "failed"):
        supervise(resources, job_id, stopping=lambda: False)
        assert read_job(resources.sessions, job_id).status == expected
    error = read_job(resources.sessions, job_id).error
    assert error is not None
    assert error["code"] == "out_of_host_memory"
    assert "Gave up after 3 crashes. The machine's main memory" in error["message"]


def ends_with_75(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have each trainer end as after a SIGTERM, before its first line; the file says that one has."""
    ended = folder / "ended"
    (folder / "sitecustomize.py").write_text(
        f"import os, pathlib\npathlib.Path({str(ended)!r}).touch()\nos._exit(75)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return ended


def test_a_trainer_that_always_stops_unasked_fails_the_job_at_the_cap(
    resources: Resources, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = new_job()
    ends_with_75(tmp_path, monkeypatch)
    for expected in ("queued", "queued", "failed"):
        supervise(resources, job_id, stopping=lambda: False)
        assert read_job(resources.sessions, job_id).status == expected
    error = read_job(resources.sessions, job_id).error
    assert error is not None
    assert "exit code 75, as after a SIGTERM, which its worker did not send" in error["message"]


def test_a_trainer_that_is_stopped_together_with_its_worker_has_not_crashed(
    resources: Resources, new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a signal to all of a host or container: the trainer may end before its worker has stopped it."""
    job_id = new_job()
    ended = ends_with_75(tmp_path, monkeypatch)
    for _ in range(4):
        ended.unlink(missing_ok=True)
        supervise(resources, job_id, stopping=ended.exists)
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt, job.crashes) == ("queued", 4, 0)


def test_a_base_that_cannot_be_loaded_fails_the_job_with_the_reason(
    resources: Resources, new_job: NewJob, tmp_path: Path
) -> None:
    job_id = new_job()
    with resources.sessions.begin() as session:
        job = session.get_one(Job, job_id)
        job.spec = {**job.spec, "base": {**job.spec["base"], "source": str(tmp_path / "gone")}}
    supervise(resources, job_id, stopping=lambda: False)
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert "gone" in job.error["message"]


def test_a_hint_follows_an_attempt_that_another_may_repeat_at_once_and_no_other(
    resources: Resources, new_job: NewJob, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # the interpreter ends before its first line
    job_id = new_job()
    with servers.broker_client(broker_url) as client:
        client.flushall()
        hints = []
        for stopping in (False, True, False, False):  # a crash, a worker that stops, a crash, the crash at the cap
            supervise(resources, job_id, stopping=partial(bool, stopping))
            hints.append(client.llen("train"))
            job = read_job(resources.sessions, job_id)
            assert (job.published_at is not None) == (job.status == "queued")
        assert (job.status, hints) == ("failed", [1, 2, 3, 3])


def test_a_broker_or_a_database_that_is_away_when_a_hint_is_due_ends_nothing(
    resources: Resources, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.valkey() as url:
        gone = replace(resources, hints=Hints(url))
    job_id = new_job()
    supervise(gone, job_id, stopping=lambda: True)
    assert read_job(resources.sessions, job_id).status == "queued"
    assert read_job(resources.sessions, job_id).published_at is None
    nowhere = replace(resources, sessions=open_sessions(open_engine("postgresql+psycopg://127.0.0.1:9/none")))
    publish_jobs(nowhere, [job_id])


def test_a_hub_that_cannot_be_reached_is_tried_again_by_the_next_attempt(
    resources: Resources, new_job: NewJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    job_id = new_job(base={"name": "far", "family": "sdxl", "source": "some/model", "revision": "abc"})
    for expected in ("queued", "queued", "failed"):
        supervise(resources, job_id, stopping=lambda: False)
        assert read_job(resources.sessions, job_id).status == expected
    error = read_job(resources.sessions, job_id).error
    assert error is not None
    assert error["code"] == "base_unavailable"


def test_a_spec_that_this_version_does_not_know_fails_the_job_at_once(resources: Resources, new_job: NewJob) -> None:
    job_id = new_job()
    with resources.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(spec={"base": {"name": "x"}}))
    supervise(resources, job_id, stopping=lambda: False)
    job = read_job(resources.sessions, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "invalid_spec"


@pytest.mark.parametrize(
    "later",
    [
        {"invented": 1},
        {"sampling": {"invented": True}},
        {"method": {"type": "invented", "invented": {}}},
        {"adapter": {"type": "invented"}},
    ],
)
def test_a_job_of_a_later_version_is_left_to_its_workers_and_holds_up_no_other(
    resources: Resources, new_job: NewJob, later: dict[str, Any]
) -> None:
    newer, job_id = new_job(), new_job()
    with resources.sessions.begin() as session:
        job = session.get_one(Job, newer)
        job.spec = {**job.spec, **later}
        job.priority = 1
    for _ in range(2):  # gives a job back as soon as it has it
        supervise(resources, newer, stopping=lambda: True)
    left = read_job(resources.sessions, newer)
    assert (left.status, left.attempt, left.crashes) == ("queued", 0, 0)
    assert states(resources.sessions, newer) == ["queued"]
    assert read_job(resources.sessions, job_id).attempt == 2


def test_a_missing_blob_fails_the_job_and_says_which(resources: Resources, new_job: NewJob) -> None:
    job_id = new_job()
    pairs = resources.settings.home / "blobs" / "sha256"
    for path in pairs.rglob("*"):
        if path.is_file():
            path.unlink()
    supervise(resources, job_id, stopping=lambda: False)
    job = read_job(resources.sessions, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "data_missing"
    assert attempts_left(resources.settings.home) == []


def test_a_file_without_its_list_of_pairs_fails_the_job_and_says_so(resources: Resources, new_job: NewJob) -> None:
    job_id = new_job()
    file_id = read_job(resources.sessions, job_id).training_file_id
    with resources.sessions.begin() as session:
        session.execute(update(File).where(File.id == file_id).values(pairs_sha256=None))
    supervise(resources, job_id, stopping=lambda: False)
    error = read_job(resources.sessions, job_id).error or {}
    assert error["code"] == "data_missing"
    assert f"of the pairs of {file_id}" in error["message"]


def test_a_work_directory_that_cannot_be_written_counts_as_a_crash_with_the_reason(
    resources: Resources, new_job: NewJob
) -> None:
    job_id = new_job()
    attempts = resources.settings.work_directory / "attempts"
    attempts.rmdir()
    attempts.write_text("in the way")
    for _ in range(3):
        supervise(resources, job_id, stopping=lambda: False)
        assert read_job(resources.sessions, job_id).published_at is None  # the dispatcher offers it again, later
    job = read_job(resources.sessions, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "storage_fault"
    assert str(attempts) in job.error["message"]


def test_pause_stores_a_checkpoint_and_resume_goes_on_from_it(
    resources: Resources, supervised: Supervised, new_job: NewJob, project_id: str
) -> None:
    job_id = new_job(steps=200, every=20)
    ended = supervised.run(job_id)
    until(lambda: "progress" in reported(resources.sessions, job_id), seconds=90)
    with resources.sessions.begin() as session:
        jobs.pause(session, project_id, job_id)
    ended.result()
    assert read_job(resources.sessions, job_id).status == "paused"
    step = first_checkpoint(resources.sessions, job_id)
    with resources.sessions.begin() as session:
        jobs.resume(session, project_id, job_id)
    supervised.run(job_id).result()
    assert states(resources.sessions, job_id) == ["queued", "running", "paused", "queued", "running", "succeeded"]
    assert resumed_from(resources.sessions, job_id) == [0, step]


def test_cancel_ends_the_trainer_and_the_job(
    resources: Resources, supervised: Supervised, new_job: NewJob, project_id: str
) -> None:
    job_id = new_job(steps=100_000)
    ended = supervised.run(job_id)
    trainer = found(lambda: trainer_of(job_id))
    with resources.sessions.begin() as session:
        assert jobs.cancel(session, project_id, job_id).status == "running"
    ended.result()
    assert not trainer.is_running()
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.result_files) == ("cancelled", [])
    assert states(resources.sessions, job_id) == ["queued", "running", "cancelled"]


def test_a_worker_whose_job_was_taken_over_kills_its_trainer_and_writes_nothing_more(
    resources: Resources, supervised: Supervised, new_job: NewJob
) -> None:
    job_id = new_job(steps=100_000)
    ended = supervised.run(job_id)
    trainer = found(lambda: trainer_of(job_id))
    with resources.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(attempt=2, worker="another"))
    before = len(read_events(resources.sessions, job_id))
    ended.result()
    assert not trainer.is_running()
    after = read_events(resources.sessions, job_id)
    assert len(after) == before
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt, job.worker) == ("running", 2, "another")
    assert attempts_left(resources.settings.home) == []


def test_a_silent_trainer_is_ended_while_its_lease_lives(resources: Resources, new_job: NewJob) -> None:
    patient = resources.settings.model_copy(update={"stall_seconds": 3.0})
    hung = Supervised(Resources(patient, resources.sessions, resources.blobs, resources.hints, "test"))
    job_id = new_job(steps=100_000)
    ended = hung.run(job_id)
    found(lambda: trainer_of(job_id)).send_signal(signal.SIGSTOP)
    ended.result()
    hung.close()
    assert read_job(resources.sessions, job_id).status == "queued"
    last = read_events(resources.sessions, job_id)[-1]
    assert (last.data or {})["code"] == "trainer_stalled"


def test_twenty_calls_for_one_job_run_it_once(resources: Resources, new_job: NewJob) -> None:
    job_id = new_job()
    with resources.sessions.begin() as session:
        assert job_leases.claim(session, job_id, worker="another", lease_seconds=60) is not None
    for _ in range(20):
        supervise(resources, job_id, stopping=lambda: False)
    assert states(resources.sessions, job_id) == ["queued", "running"]
    assert read_job(resources.sessions, job_id).worker == "another"


def test_the_folder_of_an_attempt_that_was_killed_is_removed_by_the_next(
    resources: Resources, sessions: Sessions, new_job: NewJob, project_id: str
) -> None:
    attempts = resources.settings.work_directory / "attempts"
    owned = new_job()
    with sessions.begin() as session:
        assert job_leases.claim(session, owned, worker="alive", lease_seconds=60) is not None
    for dead in (attempts / "ftjob-gone" / "1", attempts / owned / "7", attempts / owned / "1"):
        dead.mkdir(parents=True)
    supervise(resources, "ftjob-none", stopping=lambda: False)
    assert sorted(attempts.glob("*/*")) == [attempts / owned / "1"]
