"""Drawing images that somebody asked for: claim, run ``python -m trainer sample`` on them, store what it made."""

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
from store.generations.generation_leases import GenerationClaim
from store.tables.base import Json
from trainer.spec.events import Failed, Sampled
from trainer.spec.sample_spec import SampleSpec
from worker.resources import Resources
from worker.runtime import disk_room, leftovers, process
from worker.runtime.lease_keeper import LeaseKeeper, ended_when_lost, kept, written
from worker.runtime.spec_version import readable
from worker.runtime.stop import Stop
from worker.runtime.trainer_output import TrainerOutput, last_lines
from worker.training.conclusion import PASSING, describe_exit
from worker.training.supervisor import CODE, EXIT_SECONDS, POLL_SECONDS

log = structlog.get_logger()

FIELDS = {"invalid_size": "size"}  # of the request, by the code of the fault that only the base's files tell


@dataclass(frozen=True)
class DrawingEnd:
    """``last`` is the program's last word; ``stopped``: the worker ends; ``late``: it was killed at its time limit."""

    exit_code: int
    stderr: str
    last: Sampled | Failed | None
    stopped: bool
    late: bool


def draw(resources: Resources, generation_id: str, *, stopping: Callable[[], bool]) -> None:
    """Draw the images if they are still queued. ``stopping`` tells that this worker has to end."""
    settings = resources.settings
    leftovers.clear(resources)
    if not disk_room.is_left(resources):
        return
    claimed_at = time.monotonic()
    with resources.sessions.begin() as session:
        owned = generation_leases.claim(
            session,
            generation_id,
            worker=resources.worker,
            lease_seconds=settings.lease_seconds,
            readable=partial(readable, SampleSpec),
        )
    if owned is None:
        log.info("drawing.nothing_to_do", generation=generation_id)
        return
    folder = leftovers.attempt_folder(settings.work_directory, generation_id, owned.attempt)
    try:
        with kept(
            partial(_renew, resources.sessions, owned, settings.lease_seconds),
            claimed_at=claimed_at,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        ) as keeper:
            conclude = _attempt(resources, owned, folder, keeper, stopping)
            written(keeper, LeaseLost(owned.generation_id, owned.attempt), conclude)
    except LeaseLost:
        log.warning("drawing.lease_lost", generation=generation_id, attempt=owned.attempt)
    finally:
        leftovers.remove_folder(folder)


Conclusion = Callable[[], None]


def _attempt(
    resources: Resources, owned: GenerationClaim, folder: Path, keeper: LeaseKeeper, stopping: Callable[[], bool]
) -> Conclusion:
    """Whatever happens ends in the one write that is returned, or in LeaseLost."""
    try:
        _prepare(resources, owned, folder)
        end = _run(resources, owned, folder, keeper, stopping)
        result = _result(resources, folder, end.last) if isinstance(end.last, Sampled) and end.exit_code == 0 else None
    except BlobMissing as missing:
        return partial(_fail, resources, owned, "data_missing", str(missing))
    except ValidationError as invalid:
        message = f"What was asked for is not valid for this version: {invalid}"
        return partial(_fail, resources, owned, "invalid_spec", message)
    except (OSError, ObjectStoreError) as fault:
        log.warning("drawing.storage_fault", generation=owned.generation_id, reason=str(fault))
        return partial(_crash, resources, owned, "storage_fault", "A file or blob could not be read or written.")
    if result is not None:
        return partial(_succeed, resources, owned, result)
    return _without_images(resources, owned, end)


def _without_images(resources: Resources, owned: GenerationClaim, end: DrawingEnd) -> Conclusion:
    if isinstance(end.last, Failed):
        message = end.last.message.replace("\0", "")  # which PostgreSQL's text cannot hold
        if end.last.code in PASSING:
            return partial(_crash, resources, owned, end.last.code, message)
        if end.last.code == "internal_error":
            log.error("drawing.failed", generation=owned.generation_id, stderr=end.stderr)
        return partial(_fail, resources, owned, end.last.code, message)
    if end.late:
        seconds = f"{resources.settings.images_limit_seconds:g}"
        message = f"Drawing took longer than {seconds} s and was ended. Ask for fewer images, fewer steps or less size."
        return partial(_fail, resources, owned, "time_limit", message)
    if end.stopped:
        return partial(_give_back, resources, owned)
    log.error("drawing.crashed", generation=owned.generation_id, exit_code=end.exit_code, stderr=end.stderr)
    message = f"The drawing program ended with {describe_exit(end.exit_code)}."
    return partial(_crash, resources, owned, "trainer_crashed", message)


def _prepare(resources: Resources, owned: GenerationClaim, folder: Path) -> None:
    weights = folder / "adapter"
    weights.mkdir(parents=True)
    spec = SampleSpec.model_validate(owned.spec)
    (folder / "draw.json").write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    for name, sha256 in owned.weights.items():
        resources.blobs.fetch(sha256, weights / name)


def _run(
    resources: Resources, owned: GenerationClaim, folder: Path, keeper: LeaseKeeper, stopping: Callable[[], bool]
) -> DrawingEnd:
    stderr_path = folder / "stderr.log"
    with stderr_path.open("wb") as stderr:
        program = process.start([sys.executable, "-m", "trainer", "sample", str(folder)], cwd=CODE, stderr=stderr)
    output, stop = TrainerOutput(program), Stop(program, grace_seconds=resources.settings.grace_seconds)
    try:
        with ended_when_lost(keeper, partial(process.end_group, program)):
            last, late = _watch(resources, owned, output, keeper, stop, stopping)
            with suppress(subprocess.TimeoutExpired):
                program.wait(EXIT_SECONDS)
    finally:
        process.end_group(program)
        output.close()
    return DrawingEnd(program.wait(), last_lines(stderr_path), last, stopped=stop.asked, late=late)


def _watch(
    resources: Resources,
    owned: GenerationClaim,
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
            raise LeaseLost(owned.generation_id, owned.attempt)
        if stop.asked or stopping():
            stop.press()
        elif time.monotonic() > ends_at and last is None:
            late = True
            stop.kill()
    return last, late


def _result(resources: Resources, folder: Path, drawn: Sampled) -> Json | None:
    """The images as blobs; None where they are not the ones that the program wrote."""
    stored = [resources.blobs.put_file(folder / "images" / name) for name in drawn.files]
    if [blob.sha256 for blob in stored] != list(drawn.files.values()):
        return None
    told = drawn.model_dump(mode="json", exclude={"event", "files"})
    return {"images": [{"sha256": blob.sha256, "bytes": blob.bytes} for blob in stored], **told}


def _renew(sessions: Sessions, owned: GenerationClaim, lease_seconds: float) -> None:
    with sessions.begin() as session:
        generation_leases.renew(session, owned, lease_seconds=lease_seconds)


def _succeed(resources: Resources, owned: GenerationClaim, result: Json) -> None:
    with resources.sessions.begin() as session:
        generation_leases.succeed(session, owned, result=result)


def _fail(resources: Resources, owned: GenerationClaim, code: str, message: str) -> None:
    with resources.sessions.begin() as session:
        generation_leases.fail(session, owned, code=code, message=message, param=FIELDS.get(code))


def _crash(resources: Resources, owned: GenerationClaim, code: str, message: str) -> None:
    with resources.sessions.begin() as session:
        generation_leases.crash(session, owned, code=code, message=message, crash_cap=resources.settings.crash_cap)


def _give_back(resources: Resources, owned: GenerationClaim) -> None:
    with resources.sessions.begin() as session:
        generation_leases.give_back(session, owned)
