"""Running one job: claim it, renew the lease, watch the trainer, act on requests of the user or the operator."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from obstore.exceptions import BaseError as ObjectStoreError
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.database import Sessions
from store.errors import BlobMissing, LeaseLost
from store.job_status import RequestedAction
from store.jobs import job_leases, jobs
from store.jobs.job_leases import JobLease
from store.settings import Settings
from store.tenants import limits
from trainer.spec.run import RunSpec
from worker.resources import Resources
from worker.runtime import attempt_directories, disk_space, oom_kills, process
from worker.runtime.lease_keeper import LeaseKeeper, ended_when_lost, renewing, write_until_lost
from worker.runtime.publish import publish_jobs
from worker.runtime.spec_version import readable
from worker.runtime.stop import Stop
from worker.runtime.trainer_output import TrainerOutput, last_lines
from worker.training import conclusion, leakage, run_directory
from worker.training.attempt import Attempt
from worker.training.conclusion import TrainerEnd
from worker.training.run_directory import Inputs

log = structlog.get_logger()

POLL_SECONDS = 0.2
EXIT_SECONDS = 30  # from the end of a trainer's output to its exit: tearing torch down takes a while
CODE = Path(__file__).resolve().parents[2]


class Abandoned(Exception):
    """The attempt has to end before its trainer was started."""


def supervise(resources: Resources, job_id: str, *, stopping: Callable[[], bool]) -> None:
    """Run the job whose turn it is: the hint names one, and the queue may know another that comes first, for which
    there is a hint too. ``stopping`` returns whether this worker has to end."""
    settings = resources.settings
    attempt_directories.remove_stale(resources)
    if not disk_space.is_enough(resources):
        return
    claimed_at = time.monotonic()
    with resources.sessions.begin() as session:
        lease = job_leases.claim_next(
            session,
            worker=resources.worker,
            lease_seconds=settings.lease_seconds,
            limits=limits.defaults(settings),
            memory_gib=settings.worker_memory_gib,
            readable=partial(readable, RunSpec),
        )
    if lease is None:
        log.info("job.nothing_to_do", hint=job_id)
        return
    job_id = lease.job_id
    log.info("job.claimed", job=job_id, attempt=lease.attempt)
    attempt = Attempt(lease, attempt_directories.attempt_directory(settings.work_directory, job_id, lease.attempt))
    renew = partial(_renew, resources.sessions, lease, settings.lease_seconds)
    try:
        with renewing(
            renew,
            claimed_at=claimed_at,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        ) as keeper:
            again = _attempt(resources, attempt, keeper, stopping)
    except LeaseLost:
        log.warning("job.lease_lost", job=job_id, attempt=lease.attempt)
        return
    finally:
        attempt_directories.remove(attempt.folder)
    if again:
        publish_jobs(resources, [job_id])


def _attempt(resources: Resources, attempt: Attempt, keeper: LeaseKeeper, stopping: Callable[[], bool]) -> bool:
    """Whatever happens ends in one conclusion, or in LeaseLost. Returns whether another worker may take the job at
    once."""
    lost = LeaseLost(attempt.lease.job_id, attempt.lease.attempt)
    try:
        _materialise(resources, attempt, keeper, stopping)
        end = _train(resources, attempt, keeper, stopping)
        conclude = partial(_conclude, resources, attempt, end)
        return write_until_lost(keeper, lost, conclude)
    except Abandoned:
        conclude = partial(conclusion.give_back, resources, attempt, "Stopped before training.")
    except BlobMissing as missing:
        conclude = partial(conclusion.fail, resources, attempt, "data_missing", str(missing))
    except ValidationError as invalid:
        message = f"The job's specification is not valid for this version: {invalid}"
        conclude = partial(conclusion.fail, resources, attempt, "invalid_spec", message)
    except (OSError, ObjectStoreError) as error:
        log.warning("job.storage_fault", job=attempt.lease.job_id, reason=str(error))
        message = f"A file or blob could not be read or written: {error}"
        conclude = partial(conclusion.crash, resources, attempt, "storage_fault", message)
    return write_until_lost(keeper, lost, conclude)


def _conclude(resources: Resources, attempt: Attempt, end: TrainerEnd) -> bool:
    attempt.write(resources)
    return conclusion.conclude(resources, attempt, end)


def _train(resources: Resources, attempt: Attempt, keeper: LeaseKeeper, stopping: Callable[[], bool]) -> TrainerEnd:
    stderr_path = attempt.folder / "stderr.log"
    kills_before = oom_kills.count()
    trainer = _start_trainer(attempt.folder, resources.settings, stderr_path)
    output = TrainerOutput(trainer)
    try:
        with ended_when_lost(keeper, partial(process.end_group, trainer)):
            stop = Stop(trainer, grace_seconds=resources.settings.grace_seconds)
            stalled = _watch(resources, attempt, output, keeper, stop, stopping)
            with suppress(subprocess.TimeoutExpired):
                trainer.wait(EXIT_SECONDS)
    finally:
        process.end_group(trainer)
        output.close()
    return TrainerEnd(
        trainer.wait(),
        last_lines(stderr_path),
        stopped=stop.requested,
        stalled_seconds=stalled,
        memory_ran_out=oom_kills.count() > kills_before,
    )


def _watch(
    resources: Resources,
    attempt: Attempt,
    output: TrainerOutput,
    keeper: LeaseKeeper,
    stop: Stop,
    stopping: Callable[[], bool],
) -> float | None:
    """Until the trainer's output ends. Returns for how many seconds it was silent, if it was ended for that."""
    stalled, last_event_at = None, time.monotonic()
    while not output.ended:
        events = output.read(timeout=POLL_SECONDS)
        attempt.receive(events)
        requested = _write(resources, attempt)
        if keeper.lost:
            raise LeaseLost(attempt.lease.job_id, attempt.lease.attempt)
        if stop.requested or requested or keeper.requested or stopping():
            stop.request()
        elif events:
            last_event_at = time.monotonic()
        elif time.monotonic() - last_event_at > resources.settings.stall_seconds:
            stalled = time.monotonic() - last_event_at
            stop.kill()
    return stalled


def _write(resources: Resources, attempt: Attempt) -> RequestedAction | None:
    """A database that cannot be reached is no reason to stop while the lease is good: it is written later."""
    try:
        return attempt.write(resources)
    except OperationalError as error:
        log.warning("job.not_written", job=attempt.lease.job_id, reason=str(error.orig))
        return None


def _start_trainer(folder: Path, settings: Settings, stderr_path: Path) -> subprocess.Popen[bytes]:
    cache = ["--cache", str(settings.work_directory / "cache"), "--cache-bytes", str(settings.cache_bytes)]
    command = [sys.executable, "-m", "trainer", "run", str(folder), *cache]
    with stderr_path.open("wb") as stderr:
        return process.start(command, cwd=CODE, stderr=stderr)


def _materialise(resources: Resources, attempt: Attempt, keeper: LeaseKeeper, stopping: Callable[[], bool]) -> None:
    lease = attempt.lease

    def check() -> None:
        if keeper.lost:
            raise LeaseLost(lease.job_id, lease.attempt)
        if keeper.requested or stopping():
            raise Abandoned

    inputs = write_until_lost(
        keeper, LeaseLost(lease.job_id, lease.attempt), partial(_inputs, resources.sessions, lease)
    )
    pairs = run_directory.prepare(attempt.folder, inputs, resources.blobs, check)
    attempt.receive(list(leakage.warnings(pairs)))


def _inputs(sessions: Sessions, lease: JobLease) -> Inputs:
    with sessions() as session:
        return _read_inputs(session, lease)


def _read_inputs(session: Session, lease: JobLease) -> Inputs:
    job = jobs.get(session, lease.project_id, lease.job_id)
    training, validation = jobs.pairs_documents(session, job)
    if training is None:
        raise BlobMissing(f"of the pairs of {job.training_file_id or job.training_dataset_id}")
    checkpoint = job_leases.latest_checkpoint(session, lease.job_id)
    return Inputs(
        spec=RunSpec.model_validate(job.spec),
        training_pairs=training,
        validation_pairs=validation,
        checkpoint_step=checkpoint.step if checkpoint else None,
        checkpoint=checkpoint.manifest if checkpoint else {},
    )


def _renew(sessions: Sessions, lease: JobLease, lease_seconds: float) -> RequestedAction | None:
    with sessions.begin() as session:
        return job_leases.renew(session, lease, lease_seconds=lease_seconds)
