"""What an intake worker may do to the file that it reads: claim, renew, tell, finish. Nothing here commits.

As with jobs (job_leases): the attempt of a claim is the fencing token, and the database's clock alone judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from intake.findings import ADVICE
from store.errors import LeaseLost
from store.ops.counters import count
from store.tables.base import Json
from store.tables.file import File


@dataclass(frozen=True)
class FileClaim:
    file_id: str
    project_id: str
    attempt: int
    sha256: str
    filename: str
    policy: Json | None


def claim(session: Session, file_id: str, *, lease_seconds: float) -> FileClaim | None:
    """Take an uploaded file that nobody is reading; one whose reader is lost waits for ``expire``."""
    row = session.execute(
        update(File)
        .where(
            File.id == file_id,
            File.status == "uploaded",
            File.deleted_at.is_(None),
            File.lease_expires_at.is_(None),
        )
        .values(attempt=File.attempt + 1, lease_expires_at=_expiry(lease_seconds))
        .returning(File.project_id, File.attempt, File.sha256, File.filename, File.policy)
    ).one_or_none()
    if row is None:
        return None
    count(session, "claims", "intake")
    return FileClaim(file_id, row.project_id, row.attempt, row.sha256, row.filename, row.policy)


def renew(session: Session, owned: FileClaim, *, lease_seconds: float) -> None:
    _write(session, owned, lease_expires_at=_expiry(lease_seconds))
    count(session, "renewals", "intake")


def note_progress(session: Session, owned: FileClaim, progress: Json) -> None:
    _write(session, owned, progress=progress)


def finish(
    session: Session,
    owned: FileClaim,
    *,
    status: str,
    details: str | None,
    pairs_sha256: str | None = None,
    pairs_count: int | None = None,
    report: Json | None = None,
) -> None:
    """``status``: processed or error."""
    _write(
        session,
        owned,
        status=status,
        status_details=details,
        pairs_sha256=pairs_sha256,
        pairs_count=pairs_count,
        report=report,
        progress=None,
        lease_expires_at=None,
    )


def give_back(session: Session, owned: FileClaim) -> None:
    """The worker stops: the next one may begin at once, and nothing is held against the file."""
    _write(session, owned, **_UNREAD, attempt=File.attempt + 1)
    count(session, "requeues", "intake")


def crash(session: Session, owned: FileClaim, *, reason: str, crash_cap: int) -> bool:
    """Reading broke off by itself; whether it was given up, as that has happened ``crash_cap`` times."""
    file = session.scalar(select(File).where(_fence(owned)).with_for_update())
    if file is None:
        raise LeaseLost(owned.file_id, owned.attempt)
    return _crashed(session, file, reason, crash_cap)


def expire(session: Session, *, crash_cap: int) -> list[str]:
    """Take back files whose reader renews its lease no more; returns the ids of those given up, so that no archive can
    keep killing intake workers."""
    lost = select(File).where(File.status == "uploaded", File.deleted_at.is_(None), _expired())
    files = session.scalars(lost.with_for_update(skip_locked=True)).all()
    reason = "the worker is gone, as when it was killed or its machine's memory ran out"
    return [file.id for file in files if _crashed(session, file, reason, crash_cap)]


# The attempt grows too: whoever had the file, and may not have stopped yet, writes nothing more.
_UNREAD: dict[str, Any] = {"lease_expires_at": None, "published_at": None, "progress": None}


def _crashed(session: Session, file: File, reason: str, crash_cap: int) -> bool:
    file.crashes += 1
    file.attempt += 1
    file.lease_expires_at = file.published_at = file.progress = None
    count(session, "crashes", "intake")
    if file.crashes < crash_cap:
        count(session, "requeues", "intake")
        return False
    file.status = "error"
    times = "once" if file.crashes == 1 else f"{file.crashes} times"
    file.status_details = (
        f"intake_crashed: reading this file broke off {times}, the last time because {reason}. "
        f"{ADVICE['intake_crashed']}"
    )
    return True


def _write(session: Session, owned: FileClaim, **changes: Any) -> None:
    if session.execute(update(File).where(_fence(owned)).values(**changes).returning(File.id)).one_or_none() is None:
        raise LeaseLost(owned.file_id, owned.attempt)


def _fence(owned: FileClaim) -> ColumnElement[bool]:
    return (File.id == owned.file_id) & (File.attempt == owned.attempt) & (File.status == "uploaded")


def _expired() -> ColumnElement[bool]:
    return File.lease_expires_at < func.clock_timestamp()


def _expiry(lease_seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=lease_seconds)
