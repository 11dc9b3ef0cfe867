"""Running one image generation: claim it, run ``python -m trainer sample``, store the images."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from obstore.exceptions import BaseError as ObjectStoreError
from pydantic import ValidationError

from store.database import Sessions
from store.errors import BlobMissing, LeaseLost
from store.generations import generation_leases
from store.generations.generation_leases import GenerationLease
from store.job_status import RequestedAction
from store.tables.base import Json
from store.tenants import limits
from trainer.spec.events import Failed, Sampled
from trainer.spec.sample_spec import SampleSpec
from worker.resources import Resources
from worker.runtime import attempt_directories, disk_space, process
from worker.runtime.lease_keeper import LeaseKeeper, ended_when_lost, renewing, write_until_lost
from worker.runtime.spec_version import readable
from worker.runtime.stop import Stop
from worker.runtime.trainer_output import TrainerOutput, last_lines
from worker.training.conclusion import TRANSIENT, describe_exit
from worker.training.supervisor import CODE, EXIT_SECONDS, POLL_SECONDS

log = structlog.get_logger()

FIELDS = {"invalid_size": "size"}  # of the request, by the code of the error that only the base's files tell


@dataclass(frozen=True)
class GenerationEnd:
    """``last`` is the program's last word; ``stopped``: the worker ends; ``late``: it was killed at its time limit;
    ``cancelled``: its owner wants none of it any more."""

    exit_code: int
    stderr: str
    last: Sampled | Failed | None
    stopped: bool
    late: bool
    cancelled: bool


def generate(resources: Resources, generation_id: str, *, stopping: Callable[[], bool]) -> None:
    """Generate the images whose turn it is: the hint names some, and another project's may come first, for which there
    is a hint too. ``stopping`` returns whether this worker has to end."""
    settings = resources.settings
    attempt_directories.remove_stale(resources)
    if not disk_space.is_enough(resources):
        return
    claimed_at = time.monotonic()
    with resources.sessions.begin() as session:
        lease = generation_leases.claim_next(
            session,
            worker=resources.worker,
            lease_seconds=settings.lease_seconds,
            limits=limits.defaults(settings),
            readable=partial(readable, SampleSpec),
        )
    if lease is None:
        log.info("generation.nothing_to_do", hint=generation_id)
        return
    generation_id = lease.generation_id
    folder = attempt_directories.attempt_directory(settings.work_directory, generation_id, lease.attempt)
    try:
        with renewing(
            partial(_renew, resources.sessions, lease, settings.lease_seconds),
            claimed_at=claimed_at,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        ) as keeper:
            conclude = _attempt(resources, lease, folder, keeper, stopping)
            write_until_lost(keeper, LeaseLost(lease.generation_id, lease.attempt), conclude)
    except LeaseLost:
        log.warning("generation.lease_lost", generation=generation_id, attempt=lease.attempt)
    finally:
        attempt_directories.remove(folder)


Conclusion = Callable[[], None]


def _attempt(
    resources: Resources, lease: GenerationLease, folder: Path, keeper: LeaseKeeper, stopping: Callable[[], bool]
) -> Conclusion:
    """Whatever happens ends in the one write that is returned, or in LeaseLost."""
    try:
        _prepare(resources, lease, folder)
        end = _run(resources, lease, folder, keeper, stopping)
        result = _result(resources, folder, end.last) if isinstance(end.last, Sampled) and end.exit_code == 0 else None
    except BlobMissing as missing:
        return partial(_fail, resources, lease, "data_missing", str(missing))
    except ValidationError as invalid:
        message = f"The request is not valid for this version: {invalid}"
        return partial(_fail, resources, lease, "invalid_spec", message)
    except (OSError, ObjectStoreError) as error:
        log.warning("generation.storage_fault", generation=lease.generation_id, reason=str(error))
        return partial(_crash, resources, lease, "storage_fault", "A file or blob could not be read or written.")
    if result is not None:
        return partial(_succeed, resources, lease, result)
    return _without_images(resources, lease, end)


def _without_images(resources: Resources, lease: GenerationLease, end: GenerationEnd) -> Conclusion:
    if end.cancelled:
        return partial(_cancel, resources, lease)
    if isinstance(end.last, Failed):
        message = end.last.message.replace("\0", "")  # which PostgreSQL's text cannot hold
        if end.last.code in TRANSIENT:
            return partial(_crash, resources, lease, end.last.code, message)
        if end.last.code == "internal_error":
            log.error("generation.failed", generation=lease.generation_id, stderr=end.stderr)
        return partial(_fail, resources, lease, end.last.code, message)
    if end.late:
        seconds = f"{resources.settings.images_limit_seconds:g}"
        message = f"It took longer than {seconds} s and was ended. Request fewer images, fewer steps or a smaller size."
        return partial(_fail, resources, lease, "time_limit", message)
    if end.stopped:
        return partial(_give_back, resources, lease)
    log.error("generation.crashed", generation=lease.generation_id, exit_code=end.exit_code, stderr=end.stderr)
    message = f"The sampling program ended with {describe_exit(end.exit_code)}."
    return partial(_crash, resources, lease, "trainer_crashed", message)


def _prepare(resources: Resources, lease: GenerationLease, folder: Path) -> None:
    weights = folder / "adapter"
    weights.mkdir(parents=True)
    spec = SampleSpec.model_validate(lease.spec)
    (folder / "draw.json").write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    for name, sha256 in lease.weights.items():
        resources.blobs.fetch(sha256, weights / name)


def _run(
    resources: Resources, lease: GenerationLease, folder: Path, keeper: LeaseKeeper, stopping: Callable[[], bool]
) -> GenerationEnd:
    stderr_path = folder / "stderr.log"
    with stderr_path.open("wb") as stderr:
        program = process.start([sys.executable, "-m", "trainer", "sample", str(folder)], cwd=CODE, stderr=stderr)
    output, stop = TrainerOutput(program), Stop(program, grace_seconds=resources.settings.grace_seconds)
    try:
        with ended_when_lost(keeper, partial(process.end_group, program)):
            last, late = _watch(resources, lease, output, keeper, stop, stopping)
            with suppress(subprocess.TimeoutExpired):
                program.wait(EXIT_SECONDS)
    finally:
        process.end_group(program)
        output.close()
    cancelled = keeper.requested is RequestedAction.CANCEL
    exit_code = program.wait()
    return GenerationEnd(
        exit_code, last_lines(stderr_path), last, stopped=stop.requested, late=late, cancelled=cancelled
    )


def _watch(
    resources: Resources,
    lease: GenerationLease,
    output: TrainerOutput,
    keeper: LeaseKeeper,
    stop: Stop,
    stopping: Callable[[], bool],
) -> tuple[Sampled | Failed | None, bool]:
    """Until the program's output ends: its last word, and whether it was killed at the time limit."""
    last: Sampled | Failed | None = None
    late, ends_at = False, time.monotonic() + resources.settings.images_limit_seconds
    while not output.ended:
        for event in output.read(timeout=POLL_SECONDS):
            last = event if isinstance(event, Sampled | Failed) else last
        if keeper.lost:
            raise LeaseLost(lease.generation_id, lease.attempt)
        if keeper.requested is RequestedAction.CANCEL:
            stop.kill()
        elif stop.requested or stopping():
            stop.request()
        elif time.monotonic() > ends_at and last is None:
            late = True
            stop.kill()
    return last, late


def _result(resources: Resources, folder: Path, sampled: Sampled) -> Json | None:
    """The images as blobs; None where they are not the ones that the program wrote."""
    stored = [resources.blobs.put_file(folder / "images" / name) for name in sampled.files]
    if [blob.sha256 for blob in stored] != list(sampled.files.values()):
        return None
    fields = sampled.model_dump(mode="json", exclude={"event", "files"})
    return {"images": [{"sha256": blob.sha256, "bytes": blob.bytes} for blob in stored], **fields}


def _renew(sessions: Sessions, lease: GenerationLease, lease_seconds: float) -> RequestedAction | None:
    with sessions.begin() as session:
        cancelled = generation_leases.renew(session, lease, lease_seconds=lease_seconds)
    return RequestedAction.CANCEL if cancelled else None


def _succeed(resources: Resources, lease: GenerationLease, result: Json) -> None:
    with resources.sessions.begin() as session:
        generation_leases.succeed(session, lease, result=result)


def _fail(resources: Resources, lease: GenerationLease, code: str, message: str) -> None:
    with resources.sessions.begin() as session:
        generation_leases.fail(session, lease, code=code, message=message, param=FIELDS.get(code))


def _cancel(resources: Resources, lease: GenerationLease) -> None:
    with resources.sessions.begin() as session:
        generation_leases.cancel(session, lease)


def _crash(resources: Resources, lease: GenerationLease, code: str, message: str) -> None:
    with resources.sessions.begin() as session:
        generation_leases.crash(session, lease, code=code, message=message, crash_cap=resources.settings.crash_cap)


def _give_back(resources: Resources, lease: GenerationLease) -> None:
    with resources.sessions.begin() as session:
        generation_leases.give_back(session, lease)
