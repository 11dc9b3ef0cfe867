"""What an intake worker may do to the file that it leases: claim, renew, report, finish. Nothing here commits.

As with every lease (store/leases.py), the attempt of a claim is the fencing token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from intake.findings import ADVICE
from store import leases, turns
from store.ops.counters import count
from store.tables.base import Json
from store.tables.file import File
from store.tenants.limits import UNLIMITED, ProjectLimits
from store.turns import FILES


@dataclass(frozen=True)
class FileLease:
    file_id: str
    project_id: str
    attempt: int
    sha256: str
    filename: str
    policy: Json | None


def claim(session: Session, file_id: str, *, lease_seconds: float) -> FileLease | None:
    """Take an uploaded file that nobody is reading; one whose reader is lost waits for ``expire``."""
    row = leases.claim(session, FILES, file_id, *_CLAIMED, lease_seconds=lease_seconds)
    return _claimed(row) if row is not None else None


def claim_next(session: Session, *, lease_seconds: float, limits: ProjectLimits = UNLIMITED) -> FileLease | None:
    """Claim the upload whose turn it is (store/turns.py); None if there is none. ``limits`` are the deployment's."""
    turn = turns.next_id(session, turns.FILE_TURNS, limits.running_files)
    if turn is None or not turns.may_run(session, turns.FILE_TURNS, turn, limits.running_files):
        return None
    lease = claim(session, turn, lease_seconds=lease_seconds)
    if lease is not None:
        turns.mark_served(session, turns.FILE_TURNS, lease.project_id)
    return lease


def renew(session: Session, lease: FileLease, *, lease_seconds: float) -> None:
    leases.renew(session, FILES, lease.file_id, lease.attempt, lease_seconds=lease_seconds)


def note_progress(session: Session, lease: FileLease, progress: Json) -> None:
    _write(session, lease, progress=progress)


def finish(
    session: Session,
    lease: FileLease,
    *,
    status: str,
    details: str | None,
    pairs_sha256: str | None = None,
    pairs_count: int | None = None,
    images_bytes: int | None = None,
    report: Json | None = None,
) -> None:
    """``status``: processed or error."""
    _write(
        session,
        lease,
        status=status,
        status_details=details,
        pairs_sha256=pairs_sha256,
        pairs_count=pairs_count,
        images_bytes=images_bytes,
        report=report,
        progress=None,
        lease_expires_at=None,
    )


def give_back(session: Session, lease: FileLease) -> None:
    """The worker stops: the next one may begin at once, and nothing is held against the file."""
    _requeue(session, lease)


def crash(session: Session, lease: FileLease, *, reason: str, crash_cap: int) -> bool:
    """Reading broke off by itself; whether it was given up, as that has happened ``crash_cap`` times."""
    crashes = leases.lock(session, FILES, lease.file_id, lease.attempt, File.crashes).crashes + 1
    count(session, "crashes", "intake")
    if crashes < crash_cap:
        _requeue(session, lease, crashes=crashes)
        return False
    times = "once" if crashes == 1 else f"{crashes} times"
    details = (
        f"intake_crashed: reading this file broke off {times}, the last time because {reason}. "
        f"{ADVICE['intake_crashed']}"
    )
    _write(session, lease, **_FREE, crashes=crashes, status="error", status_details=details)
    return True


def expire(session: Session, *, crash_cap: int) -> list[str]:
    """Take back files whose reader renews its lease no more; returns the ids of those given up, so that no archive can
    keep killing intake workers."""
    reason = "the worker is gone, as when it was killed or its machine's memory ran out"
    lost = [_claimed(row) for row in leases.expired(session, FILES, *_CLAIMED)]
    return [lease.file_id for lease in lost if crash(session, lease, reason=reason, crash_cap=crash_cap)]


_CLAIMED = (File.id, File.project_id, File.attempt, File.sha256, File.filename, File.policy)


def _claimed(row: Row[Any]) -> FileLease:
    return FileLease(row.id, row.project_id, row.attempt, row.sha256, row.filename, row.policy)


# The attempt grows too: the worker that had the file, and may not have stopped yet, writes nothing more.
_FREE: dict[str, Any] = {
    "attempt": File.attempt + 1,
    "lease_expires_at": None,
    "published_at": None,
    "progress": None,
}


def _requeue(session: Session, lease: FileLease, **changes: Any) -> None:
    _write(session, lease, **_FREE, **changes)
    count(session, "requeues", "intake")


def _write(session: Session, lease: FileLease, **changes: Any) -> None:
    leases.write(session, FILES, lease.file_id, lease.attempt, **changes)
