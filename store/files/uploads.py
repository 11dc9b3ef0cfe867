"""Uploads in parts: rows and their one transition, pending to completed, cancelled or expired. Nothing here commits.

A function that ends an upload or adds to it locks its row. Of a completion, a cancellation and an expiry that meet, one
wins and the others find the upload ended. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from store import pagination
from store.errors import TooManyParts, UploadNotFound, UploadNotPending
from store.ids import new_id
from store.tables.base import Json
from store.tables.upload import Upload, UploadPart

MAX_PARTS = 10_000
PART_BYTES = 64 * 1024 * 1024  # the largest part, and what OpenAI's SDK sends


@dataclass(frozen=True)
class NewUpload:
    project_id: str
    filename: str
    purpose: str
    bytes: int
    policy: Json | None = None


@dataclass(frozen=True)
class NewPart:
    id: str
    bytes: int
    sha256: str


def create(session: Session, new: NewUpload, *, lifetime_seconds: float) -> Upload:
    upload = Upload(
        id=new_id("upload"),
        project_id=new.project_id,
        filename=new.filename,
        purpose=new.purpose,
        bytes=new.bytes,
        policy=new.policy,
        expires_at=func.now() + timedelta(seconds=lifetime_seconds),
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def get(session: Session, project_id: str, upload_id: str) -> Upload:
    """One whose time is over is expired from that moment, whether or not the dispatcher has been there."""
    _expire(session, Upload.id == upload_id)
    return _get(session, project_id, upload_id, lock=False)


def pending(session: Session, project_id: str, upload_id: str) -> Upload:
    """Raise UploadNotPending for one that has ended."""
    return require_pending(get(session, project_id, upload_id))


def require_pending(upload: Upload) -> Upload:
    if upload.status != "pending":
        raise UploadNotPending(upload.id, upload.status)
    return upload


def add_part(session: Session, project_id: str, upload_id: str, new: NewPart) -> UploadPart:
    """Parts that a retry made superfluous may stay: up to twice the declared bytes, and one part."""
    upload = lock_pending(session, project_id, upload_id)
    if new.bytes > available_bytes(session, upload):
        raise TooManyParts(upload_id)
    part = UploadPart(id=new.id, upload_id=upload_id, bytes=new.bytes, sha256=new.sha256)
    session.add(part)
    session.flush()
    session.refresh(part)
    return part


def available_bytes(session: Session, upload: Upload) -> int:
    """Bytes that its parts may still have."""
    stored = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0))
    count, size = session.execute(stored.where(UploadPart.upload_id == upload.id)).one()
    return 2 * upload.bytes + PART_BYTES - int(size) if count < MAX_PARTS else 0


def parts(session: Session, upload_id: str, *, after: str | None, limit: int) -> list[UploadPart]:
    """In the order of their ids, which is that of their arrival; beyond the part ``after``. Raises CursorUnknown."""
    query = select(UploadPart).where(UploadPart.upload_id == upload_id).order_by(UploadPart.id).limit(limit)
    if after is not None:
        pagination.position(
            session, select(UploadPart.id).where(UploadPart.id == after, UploadPart.upload_id == upload_id), after
        )
        query = query.where(UploadPart.id > after)
    return list(session.scalars(query))


def parts_by_id(session: Session, upload_id: str, part_ids: Sequence[str]) -> dict[str, UploadPart]:
    """Those of the ids that are parts of this upload."""
    query = select(UploadPart).where(UploadPart.upload_id == upload_id, UploadPart.id.in_(part_ids))
    return {part.id: part for part in session.scalars(query)}


def lock(session: Session, project_id: str, upload_id: str) -> Upload:
    """The upload, which nobody else ends or adds to until this transaction is over."""
    _expire(session, Upload.id == upload_id)
    return _get(session, project_id, upload_id, lock=True)


def lock_pending(session: Session, project_id: str, upload_id: str) -> Upload:
    return require_pending(lock(session, project_id, upload_id))


def complete(session: Session, upload: Upload, *, file_id: str) -> None:
    """``upload`` is locked and pending."""
    _end(session, upload, "completed", file_id)


def cancel(session: Session, project_id: str, upload_id: str) -> Upload:
    """Cancelling twice is no error: the client's SDK may have lost the first answer."""
    upload = lock(session, project_id, upload_id)
    if upload.status != "cancelled":
        _end(session, require_pending(upload), "cancelled", None)
    return upload


def expire(session: Session) -> list[str]:
    """End every upload whose time is over; rows that somebody has locked are left for the next time."""
    overdue = select(Upload.id).where(_overdue()).with_for_update(skip_locked=True)
    return _expire(session, Upload.id.in_(overdue))


def of_project(session: Session, project_id: str) -> list[str]:
    """The ids of those whose parts may be stored still."""
    return list(session.scalars(select(Upload.id).where(Upload.project_id == project_id, Upload.swept_at.is_(None))))


def unswept(session: Session, *, ended_before_seconds: float) -> list[str]:
    """Uploads that ended so long ago that no request can still be storing a part of theirs."""
    before = func.clock_timestamp() - timedelta(seconds=ended_before_seconds)
    query = select(Upload.id).where(Upload.status != "pending", Upload.swept_at.is_(None), Upload.ended_at < before)
    return list(session.scalars(query.order_by(Upload.ended_at)))


def mark_swept(session: Session, upload_ids: Sequence[str]) -> None:
    session.execute(delete(UploadPart).where(UploadPart.upload_id.in_(upload_ids)))
    session.execute(update(Upload).where(Upload.id.in_(upload_ids)).values(swept_at=func.clock_timestamp()))


def _overdue() -> ColumnElement[bool]:
    return (Upload.status == "pending") & (Upload.expires_at <= func.clock_timestamp())


def _expire(session: Session, which: ColumnElement[bool]) -> list[str]:
    ended = update(Upload).where(which, _overdue()).values(status="expired", ended_at=func.clock_timestamp())
    return list(session.scalars(ended.returning(Upload.id)))


def _get(session: Session, project_id: str, upload_id: str, *, lock: bool) -> Upload:
    query = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    upload = session.scalar(query.with_for_update() if lock else query)
    if upload is None:
        raise UploadNotFound(upload_id)
    return upload


def _end(session: Session, upload: Upload, status: str, file_id: str | None) -> None:
    ended_at = session.scalar(select(func.clock_timestamp()))
    upload.status, upload.file_id, upload.ended_at = status, file_id, ended_at
    session.flush()
