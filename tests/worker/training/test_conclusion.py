"""What a trainer's end and words become: a success, a crash that is tried again, or a failure."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from store.blobs.blobs import Blobs
from store.database import open_engine, open_sessions
from store.jobs import jobs
from store.tables.job import Job
from tests.store.rows import read_events, read_job, running_job
from tests.worker.training.test_event_messages import METRICS
from trainer.spec.events import CheckpointWritten, Done, Failed, Warned
from worker.resources import Resources
from worker.training.attempt import Attempt, store_checkpoint_files
from worker.training.conclusion import TrainerEnd, conclude

WEIGHTS = b"weights"


@pytest.fixture
def attempt(resources: Resources, project_id: str, tmp_path: Path) -> Attempt:
    """With an output of one file."""
    (tmp_path / "run" / "output").mkdir(parents=True)
    (tmp_path / "run" / "output" / "a.safetensors").write_bytes(WEIGHTS)
    return Attempt(running_job(resources.sessions, project_id), tmp_path / "run")


def done(**files: bytes) -> Done:
    named = {f"{name}.safetensors": hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return Done(best_step=1, files=named)


def ended(exit_code: int, *, stopped: bool = False, stalled: float | None = None, memory: bool = False) -> TrainerEnd:
    return TrainerEnd(exit_code, "last lines", stopped=stopped, stalled_seconds=stalled, memory_ran_out=memory)


def concluded(resources: Resources, attempt: Attempt, end: TrainerEnd) -> tuple[Job, str | None]:
    """The job, and the code of its last event."""
    again = conclude(resources, attempt, end)
    job = read_job(resources.sessions, attempt.lease.job_id)
    data = read_events(resources.sessions, job.id)[-1].data or {}
    code = data.get("code") or (job.error or {}).get("code")
    assert again == (job.status == "queued" and code not in ("device_error", "disk_full"))
    return job, code


@pytest.mark.integration
@pytest.mark.parametrize(
    "promised",
    [done(a=b"others"), done(a=WEIGHTS, b=b"lost"), done()],
    ids=["other bytes", "a file less", "a file more"],
)
def test_an_output_that_is_not_what_the_trainer_wrote_is_never_a_result(
    resources: Resources, attempt: Attempt, promised: Done
) -> None:
    attempt.done = promised
    job, code = concluded(resources, attempt, ended(0))
    assert (job.status, job.crashes, job.result_files, code) == ("queued", 1, [], "output_damaged")


@pytest.mark.integration
def test_an_output_with_the_hashes_that_the_trainer_reported_is_the_result(
    resources: Resources, attempt: Attempt
) -> None:
    attempt.done = done(a=WEIGHTS)
    job, _ = concluded(resources, attempt, ended(0, stopped=True))  # the stop came too late
    assert (job.status, len(job.result_files)) == ("succeeded", 1)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (ended(0), "queued", "trainer_crashed"),  # without a word of its success
        (ended(75), "queued", "trainer_crashed"),  # without a request to stop
        (ended(75, stopped=True), "queued", None),
        (ended(-9), "queued", "trainer_crashed"),
        (ended(-9, memory=True), "queued", "out_of_host_memory"),
        (ended(-15, memory=True), "queued", "trainer_crashed"),  # the kernel ended another process
        (ended(1, memory=True), "queued", "trainer_crashed"),
        (ended(-9, stalled=30.0), "queued", "trainer_stalled"),
        (ended(-9, stalled=30.0, memory=True), "queued", "trainer_stalled"),
    ],
    ids=lambda given: str(given) if not isinstance(given, TrainerEnd) else f"exit {given.exit_code}",
)
def test_an_end_without_a_word_is_a_crash_unless_it_was_requested(
    resources: Resources, attempt: Attempt, end: TrainerEnd, status: str, code: str | None
) -> None:
    job, reported = concluded(resources, attempt, end)
    assert (job.status, reported, job.crashes) == (status, code, 0 if code is None else 1)


@pytest.mark.integration
@pytest.mark.parametrize("exit_code", [1, 75, -9, -15])
def test_a_trainer_that_fails_after_it_was_done_has_not_succeeded(
    resources: Resources, attempt: Attempt, exit_code: int
) -> None:
    attempt.done = done(a=WEIGHTS)
    job, code = concluded(resources, attempt, ended(exit_code))
    assert (job.status, code) == ("queued", "trainer_crashed")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("code", "status"), [("disk_full", "queued"), ("device_error", "queued"), ("bad_data", "failed")]
)
def test_a_fault_that_may_pass_is_tried_again_and_any_other_fails_the_job(
    resources: Resources, attempt: Attempt, code: str, status: str
) -> None:
    attempt.failed = Failed(code=code, message="It broke.")
    job, reported = concluded(resources, attempt, ended(1, stopped=True))
    assert (job.status, reported) == (status, code)


@pytest.mark.integration
def test_what_an_unreachable_database_did_not_take_is_written_later_and_once(
    resources: Resources, attempt: Attempt
) -> None:
    unreachable = open_engine("postgresql+psycopg://127.0.0.1:9/none")
    away = replace(resources, sessions=open_sessions(unreachable))
    attempt.receive([Warned(code="first", message="First.")])
    for _ in range(2):
        with pytest.raises(OperationalError):
            attempt.write(away)
    attempt.receive([Warned(code="second", message="Second.")])
    for _ in range(2):
        attempt.write(resources)
    reported = [event.message for event in read_events(resources.sessions, attempt.lease.job_id)]
    assert reported[-2:] == ["First.", "Second."]
    assert reported.count("First.") == 1
    unreachable.dispose()


@pytest.mark.integration
def test_a_checkpoint_has_the_measurement_of_its_own_step_alone(resources: Resources, attempt: Attempt) -> None:
    for step in (3, 5):
        folder = attempt.folder / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    written = [CheckpointWritten(step=step, path=f"checkpoints/step-{step}") for step in (3, 5)]
    attempt.receive([METRICS, *written])
    attempt.write(resources)
    with resources.sessions() as session:
        found = jobs.checkpoints(session, attempt.lease.job_id, after=None, limit=10)
    assert [(one.step, "valid_loss" in one.metrics) for one in found] == [(5, False), (3, True)]
    assert found[0].metrics == {"step": 5}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-00000003"
    folder.mkdir()
    for name in ("weights.safetensors", "optimizer.safetensors"):
        (folder / name).write_bytes(name.encode())
    named = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    (folder / "manifest.json").write_text(str(named).replace("'", '"'))
    return folder


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(f"file://{tmp_path}/blobs")


@pytest.mark.unit
def test_a_whole_checkpoint_is_stored_with_all_of_its_files(blobs: Blobs, checkpoint: Path) -> None:
    stored = store_checkpoint_files(blobs, checkpoint)
    assert stored is not None
    assert stored.keys() == {"manifest.json", "weights.safetensors", "optimizer.safetensors"}
    assert all(blobs.read(entry["sha256"]) == (checkpoint / name).read_bytes() for name, entry in stored.items())


@pytest.mark.unit
@pytest.mark.parametrize("lost", ["weights.safetensors", "optimizer.safetensors", "manifest.json"])
def test_a_checkpoint_that_is_half_pruned_is_none(blobs: Blobs, checkpoint: Path, lost: str) -> None:
    (checkpoint / lost).unlink()
    assert store_checkpoint_files(blobs, checkpoint) is None


@pytest.mark.unit
def test_a_checkpoint_with_other_bytes_than_its_manifest_names_is_none(blobs: Blobs, checkpoint: Path) -> None:
    (checkpoint / "weights.safetensors").write_bytes(b"torn")
    assert store_checkpoint_files(blobs, checkpoint) is None
