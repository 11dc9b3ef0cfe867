"""Reading an uploaded file: claim, fetch, prepare, store the images and pairs, queue the jobs that wait."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
from obstore.exceptions import BaseError as ObjectStoreError
from sqlalchemy.exc import OperationalError

from intake import Finding, Limits, Policy, PreparedUpload, Progress, memory, prepare_upload
from intake.images.image_folder import StoredImage
from store.blobs.blobs import Blobs, StoredBlob
from store.database import Sessions
from store.datasets import image_facts
from store.datasets.image_facts import MeasuredImage
from store.errors import BlobMissing, LeaseLost, QuotaExceeded
from store.files import file_leases
from store.files.file_leases import FileLease
from store.jobs import jobs
from store.jobs.events import NewEvent
from store.tenants import limits, projects, quotas
from worker.resources import Resources
from worker.runtime import attempt_directories, disk_space
from worker.runtime.lease_keeper import released_on_stop, renewing, write_until_lost
from worker.runtime.publish import publish_jobs

log = structlog.get_logger()

PROGRESS_SECONDS = 2.0
EVENT_SECONDS = 60.0
FACTS_AT_ONCE = 5000
IMAGES_AT_ONCE = 2048  # are stored between two reports of progress, and two looks at whether to stop
SHOWN_FINDINGS = 50  # of status_details; the rest is counted
NO_IMAGES: Mapping[str, StoredImage] = {}

Outcome = Callable[[], list[str]]


class OutOfTime(Exception):
    """Reading the file takes longer than any file may take."""


def read_file(resources: Resources, file_id: str, *, stopping: Callable[[], bool] = lambda: False) -> None:
    """Read the file whose turn it is: the hint names one, and another project's may come first, for which there is a
    hint too. ``stopping`` returns whether this worker has to end: it gives the file back."""
    settings, sessions = resources.settings, resources.sessions
    attempt_directories.remove_stale(resources)
    if not disk_space.is_enough(resources):
        return
    claimed_at = time.monotonic()
    with sessions.begin() as session:
        lease = file_leases.claim_next(session, lease_seconds=settings.lease_seconds, limits=limits.defaults(settings))
    if lease is None:
        log.info("intake.nothing_to_do", hint=file_id)
        return
    file_id = lease.file_id
    folder = attempt_directories.attempt_directory(settings.work_directory, file_id, lease.attempt)
    lost = LeaseLost(file_id, lease.attempt)
    renew = partial(_renew, sessions, lease, settings.lease_seconds)
    try:
        with renewing(
            renew,
            claimed_at=claimed_at,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        ) as keeper:
            ends_at = claimed_at + settings.intake_limit_seconds

            def check() -> None:
                if keeper.lost or stopping():
                    raise lost
                if time.monotonic() > ends_at:
                    raise OutOfTime

            release = partial(write_until_lost, keeper, lost, partial(_give_back, resources, lease))
            with released_on_stop(stopping, release):
                outcome = _outcome(resources, lease, folder, check)
            queued = write_until_lost(keeper, lost, outcome)
    except LeaseLost:
        log.warning("intake.stopped" if stopping() else "intake.lease_lost", file=file_id, attempt=lease.attempt)
        return
    finally:
        attempt_directories.remove(folder)
    publish_jobs(resources, queued)


def _renew(sessions: Sessions, lease: FileLease, lease_seconds: float) -> None:
    with sessions.begin() as session:
        file_leases.renew(session, lease, lease_seconds=lease_seconds)


def _outcome(resources: Resources, lease: FileLease, folder: Path, check: Callable[[], None]) -> Outcome:
    """What is to be written of the file, whatever happens; an outcome returns the jobs that can be queued now."""
    try:
        folder.mkdir(parents=True)
        started = time.monotonic()
        resources.blobs.fetch(lease.sha256, folder / "upload")
        check()
        report = _ProgressReporter(check, partial(_report_progress, resources, lease))
        fetched = time.monotonic()
        with memory.limited(resources.settings.intake_memory_bytes):
            limits_of_upload = Limits(upload_pixels=resources.settings.intake_pixels)
            policy = Policy(**(lease.policy or {}))
            prepared = prepare_upload(folder / "upload", folder, limits_of_upload, policy, report)
        read = time.monotonic()
        outcome = _store(resources, lease, prepared, report)
        _log(lease, prepared, fetch=fetched - started, read=read - fetched, store=time.monotonic() - read)
        return outcome
    except BlobMissing as missing:
        return partial(_refuse, resources, lease, Finding("upload_damaged", "error", str(missing)))
    except OutOfTime:
        seconds = resources.settings.intake_limit_seconds
        message = f"reading the file takes more than {seconds:,.0f} seconds, which is the limit"
        return partial(_refuse, resources, lease, Finding("intake_time", "error", message))
    except QuotaExceeded as error:
        return partial(_refuse, resources, lease, Finding("storage_quota", "error", str(error)))
    except MemoryError:
        limit = resources.settings.intake_memory_bytes // 2**20
        message = f"reading the file takes more than {limit:,} MiB of memory, which is the limit"
        return partial(_refuse, resources, lease, Finding("intake_memory", "error", message))
    except (OSError, ObjectStoreError) as error:
        log.warning("intake.storage_fault", file=lease.file_id, reason=str(error))
        return partial(_crash, resources, lease, f"a file or blob could not be read or written: {error}")


def _log(lease: FileLease, prepared: PreparedUpload, **seconds: float) -> None:
    log.info(
        "intake.read",
        file=lease.file_id,
        format=prepared.report.format,
        rows=prepared.report.rows,
        pairs=prepared.count,
        images=len(prepared.images),
        seconds=round(sum(seconds.values()), 1),
        **{f"{phase}_seconds": round(took, 1) for phase, took in seconds.items()},
        peak_memory_mib=memory.peak() // 2**20,  # since this process started
    )


def _store(
    resources: Resources, lease: FileLease, prepared: PreparedUpload, progress: Callable[[Progress], None]
) -> Outcome:
    """Images and pairs into the blob store, if the upload can be used."""
    details, report = describe(prepared.findings), prepared.report.as_json()
    if not prepared.usable:
        return partial(_finish, resources, lease, status="error", details=details, report=report)
    done = Progress(prepared.format, prepared.report.rows, prepared.count, prepared.report.rows)
    count = len(prepared.images)
    images_bytes = sum(path.stat().st_size for path in prepared.images.values())
    _require_storage(resources, lease, images_bytes)
    store_images(
        resources.blobs,
        prepared.images,
        lambda stored: progress(dataclasses.replace(done, stored=stored, images=count)),
    )
    pairs = resources.blobs.put_file(prepared.pairs_file)
    return partial(
        _finish,
        resources,
        lease,
        measured=prepared.measured,
        status="processed",
        details=details,
        pairs_sha256=pairs.sha256,
        pairs_count=prepared.count,
        images_bytes=images_bytes,
        report=report,
    )


def _require_storage(resources: Resources, lease: FileLease, size: int) -> None:
    """The images as they are stored count like the upload. Raises QuotaExceeded."""
    with resources.sessions.begin() as session:
        own = limits.defaults(resources.settings).with_own(projects.own_limits(session, lease.project_id))
        quotas.require_storage(session, lease.project_id, own, size)


def store_images(blobs: Blobs, images: Mapping[str, Path], progress: Callable[[int], None]) -> None:
    """``images`` are files by their SHA-256, which may be gone afterwards; ``progress`` gets how many are stored."""
    left, stored = iter(images.items()), 0
    while some := [(path, StoredBlob(sha256, path.stat().st_size)) for sha256, path in islice(left, IMAGES_AT_ONCE)]:
        progress(stored)
        blobs.take_files(some)
        stored += len(some)


def _finish(
    resources: Resources, lease: FileLease, measured: Mapping[str, StoredImage] = NO_IMAGES, **fields: Any
) -> list[str]:
    _save_facts(resources.sessions, measured)
    with resources.sessions.begin() as session:
        file_leases.finish(session, lease, **fields)
        return jobs.files_ready(session, lease.file_id)


def _refuse(resources: Resources, lease: FileLease, why: Finding) -> list[str]:
    return _finish(resources, lease, status="error", details=f"{describe((why,))} {why.advice}")


def _crash(resources: Resources, lease: FileLease, reason: str) -> list[str]:
    with resources.sessions.begin() as session:
        given_up = file_leases.crash(session, lease, reason=reason, crash_cap=resources.settings.crash_cap)
        return jobs.files_ready(session, lease.file_id) if given_up else []


def _give_back(resources: Resources, lease: FileLease) -> None:
    with resources.sessions.begin() as session:
        file_leases.give_back(session, lease)


def _save_facts(sessions: Sessions, measured: Mapping[str, StoredImage]) -> None:
    """So that a dataset that takes the pairs can be reviewed without decoding them again."""
    left = iter(measured.values())
    while some := list(islice(left, FACTS_AT_ONCE)):
        facts = [MeasuredImage(image.sha256, image.width, image.height, image.fingerprint) for image in some]
        with sessions.begin() as session:
            image_facts.save(session, facts)


class _ProgressReporter:
    """Calls ``check`` at every row and between images that are stored, and ``report`` every PROGRESS_SECONDS: every
    EVENT_SECONDS for the jobs that wait, too."""

    def __init__(self, check: Callable[[], None], report: Callable[[Progress, bool], None]) -> None:
        self._check, self._report = check, report
        self._next = time.monotonic() + PROGRESS_SECONDS
        self._next_event = self._next

    def __call__(self, progress: Progress) -> None:
        self._check()
        if time.monotonic() < self._next:
            return
        to_jobs = time.monotonic() >= self._next_event
        self._report(progress, to_jobs)
        self._next = time.monotonic() + PROGRESS_SECONDS
        if to_jobs:
            self._next_event = time.monotonic() + EVENT_SECONDS


def _report_progress(resources: Resources, lease: FileLease, progress: Progress, to_jobs: bool) -> None:
    """A database that cannot be reached is no reason to stop while the lease is good."""
    fields = dataclasses.asdict(progress)
    measured = {"worker": resources.worker, "peak_memory_bytes": memory.peak()}
    try:
        with resources.sessions.begin() as session:
            file_leases.note_progress(session, lease, fields | measured)
            if to_jobs:
                data = {"event": "reading", "file": lease.file_id} | fields
                jobs.append_to_waiting(session, lease.file_id, NewEvent(_sentence(lease.file_id, progress), data=data))
    except OperationalError as error:
        log.warning("lease.not_written", row=lease.file_id, reason=str(error.orig))


def _sentence(file_id: str, progress: Progress) -> str:
    if progress.images is not None:
        return f"Storing {file_id}: {progress.stored:,} of {progress.images:,} images."
    of = f" of {progress.total:,}" if progress.total else ""
    rows = "row" if (progress.total or progress.rows) == 1 else "rows"
    pairs = "pair" if progress.kept == 1 else "pairs"
    return f"Reading {file_id}: {progress.rows:,}{of} {rows}, {progress.kept:,} {pairs} kept."


def describe(findings: tuple[Finding, ...]) -> str | None:
    """One line a finding, errors first: code, file and row, and what to do."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    lines = [f"{finding.code}: {finding.message}" for finding in ordered[:SHOWN_FINDINGS]]
    if len(ordered) > SHOWN_FINDINGS:
        lines.append(f"... and {len(ordered) - SHOWN_FINDINGS} more.")
    return "\n".join(lines) or None
