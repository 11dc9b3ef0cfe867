"""Reading an uploaded file: claim, fetch, prepare, store the images and pairs, tell the jobs that wait."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import structlog

from intake import Finding, Policy, Progress, Report, prepare_upload
from intake.image_folder import StoredImage
from store import image_facts, jobs, leases
from store.blobs import StoredBlob
from store.database import Sessions
from store.errors import BlobMissing, LeaseLost
from store.image_facts import Facts
from store.leases import FileClaim
from worker import leftovers, room
from worker.lease_keeper import kept
from worker.resources import Resources

log = structlog.get_logger()

PROGRESS_SECONDS = 2.0
KEPT_AT_ONCE = 5000
SHOWN_FINDINGS = 50  # of status_details; the rest is counted


def read_file(resources: Resources, file_id: str) -> None:
    settings, sessions = resources.settings, resources.sessions
    leftovers.clear(resources)
    if not room.is_left(resources):
        return
    claimed_at = time.monotonic()
    with sessions.begin() as session:
        owned = leases.claim_file(session, file_id, lease_seconds=settings.lease_seconds)
    if owned is None:
        log.info("intake.nothing_to_do", file=file_id)
        return
    folder = leftovers.attempt_folder(settings.work_directory, file_id, owned.attempt)
    renew = partial(_renew, sessions, owned, settings.lease_seconds)
    try:
        with kept(
            renew,
            claimed_at=claimed_at,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        ):
            queued = _read(resources, owned, folder)
    except LeaseLost as lost:
        log.warning("intake.lease_lost", file=lost.row_id, attempt=lost.attempt)
        return
    finally:
        leftovers.remove_folder(folder)
    publish_jobs(resources, queued)


def publish_jobs(resources: Resources, job_ids: list[str]) -> None:
    """After the commit that queued them."""
    with resources.sessions() as session:
        needs = jobs.memory_needs(session, job_ids)
    sent = [job_id for job_id in job_ids if resources.hints.train(job_id, needs[job_id])]
    with resources.sessions.begin() as session:
        jobs.mark_published(session, sent)


def _renew(sessions: Sessions, owned: FileClaim, lease_seconds: float) -> None:
    with sessions.begin() as session:
        leases.renew_file(session, owned, lease_seconds=lease_seconds)


def _read(resources: Resources, owned: FileClaim, folder: Path) -> list[str]:
    """Returns the jobs that can be queued now."""
    folder.mkdir(parents=True)
    started = time.monotonic()
    try:
        resources.blobs.fetch(owned.sha256, folder / "upload")
    except BlobMissing as missing:
        damaged = Finding("upload_damaged", "error", str(missing))
        return _refuse(resources, owned, f"{describe((damaged,))} {damaged.advice}")
    prepared = prepare_upload(
        folder / "upload",
        folder,
        policy=Policy(**(owned.policy or {})),
        progress=_Reported(partial(_tell, resources.sessions, owned)),
    )
    log.info(
        "intake.read",
        file=owned.file_id,
        format=prepared.report.format,
        rows=prepared.report.rows,
        pairs=prepared.count,
        images=len(prepared.images),
        seconds=round(time.monotonic() - started, 1),
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,  # since this process started
    )
    if not prepared.usable:
        return _refuse(resources, owned, describe(prepared.findings), prepared.report)
    for sha256, path in prepared.images.items():
        resources.blobs.take_file(path, StoredBlob(sha256, path.stat().st_size))
    pairs = resources.blobs.put_file(prepared.pairs_file)
    _keep_measures(resources.sessions, prepared.measured)
    with resources.sessions.begin() as session:
        leases.finish_file(
            session,
            owned,
            status="processed",
            details=describe(prepared.findings),
            pairs_sha256=pairs.sha256,
            pairs_count=prepared.count,
            report=prepared.report.as_json(),
        )
        return jobs.files_ready(session, owned.file_id)


def _refuse(resources: Resources, owned: FileClaim, details: str | None, report: Report | None = None) -> list[str]:
    told = report.as_json() if report is not None else None
    with resources.sessions.begin() as session:
        leases.finish_file(session, owned, status="error", details=details, report=told)
        return jobs.files_ready(session, owned.file_id)


def _keep_measures(sessions: Sessions, measured: Mapping[str, StoredImage]) -> None:
    """So that a data set that takes the pairs can be reviewed without decoding them again."""
    left = iter(measured.values())
    while some := list(islice(left, KEPT_AT_ONCE)):
        facts = [Facts(image.sha256, image.width, image.height, image.fingerprint) for image in some]
        with sessions.begin() as session:
            image_facts.keep(session, facts)


class _Reported:
    """Passes progress on, but not more often than somebody looks."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._tell(progress)
            self._next = time.monotonic() + PROGRESS_SECONDS


def _tell(sessions: Sessions, owned: FileClaim, progress: Progress) -> None:
    with sessions.begin() as session:
        leases.note_file_progress(session, owned, dataclasses.asdict(progress))


def describe(findings: tuple[Finding, ...]) -> str | None:
    """One line a finding, errors first: code, file and row, and what to do."""
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    lines = [f"{finding.code}: {finding.message}" for finding in ordered[:SHOWN_FINDINGS]]
    if len(ordered) > SHOWN_FINDINGS:
        lines.append(f"... and {len(ordered) - SHOWN_FINDINGS} more.")
    return "\n".join(lines) or None
