"""The space that an upload takes while it is received: of its quota, and of the disk.

Whatever a request declares about its length, what it has sent is counted before it is written. All requests that are
being received count together.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from api.dependencies import Dependencies
from api.errors.errors import RequestTooLarge
from api.http.free_space import require_free_space
from api.http.transactions import transaction
from store.errors import IdempotencyMismatch, QuotaExceeded, TooManyParts
from store.files import uploads
from store.files.uploads import PART_BYTES
from store.tables.base import Json
from store.tables.upload import Upload
from store.tenants import idempotency, quotas, usage
from store.tenants.api_keys import Principal
from store.tenants.in_flight import Hold

HELD_SECONDS = 900  # longer than storing a received file takes, and than a slow client needs for the next block
RENEWED_SECONDS = 60.0
RECOUNTED_BYTES = 64 * 1024 * 1024  # after so many bytes the stored ones are counted again: others may have ended


@dataclass
class Reservation:
    """``available_bytes``: those that all of the same ``name`` may take together, None for no limit. ``refused`` makes
    the error, of the bytes that were wanted and those that others hold."""

    dependencies: Dependencies
    name: str
    available_bytes: Callable[[], int | None]
    refused: Callable[[int, int], Exception]
    _holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    _reserved: int = 0
    _available_bytes: int | None = None
    _counted_at: int | None = None
    _renewed_at: float = 0.0

    def extend(self, size: int) -> None:
        """Before a file has ``size`` bytes in all. Raises DiskSpaceLow, and what ``refused`` makes.

        Asking for free space costs some microseconds, so that each block may do it.
        """
        require_free_space(self.dependencies)
        if self._counted_at is None or size >= self._counted_at + RECOUNTED_BYTES:
            self._available_bytes, self._counted_at = self.available_bytes(), size
        fresh = time.monotonic() < self._renewed_at + RENEWED_SECONDS
        if self._available_bytes is None or (size <= self._reserved and fresh):
            return
        size = max(size, self._reserved)
        held = self._hold(size)
        if not held.given:
            raise self.refused(size, held.others)
        self._reserved, self._renewed_at = size, time.monotonic()

    def release(self) -> None:
        if self._reserved:
            self.dependencies.in_flight.release(self.name, self._holder)

    def _hold(self, size: int) -> Hold:
        available_bytes = max(0, self._available_bytes or 0)
        return self.dependencies.in_flight.hold(self.name, self._holder, size, available_bytes, seconds=HELD_SECONDS)


def in_quota(
    dependencies: Dependencies, caller: Principal, key: str | None = None, *, replayed_bytes: bool = False
) -> Reservation:
    """Of a project's quota. ``key``: an idempotency key that was answered before takes nothing of it, because the same
    body is only compared; ``replayed_bytes``: that answer says how many bytes the body had."""
    answered = _answer_of(dependencies, caller, key) if key is not None else None
    if key is not None and answered is not None:
        max_bytes = int(answered.get("bytes", 0)) if replayed_bytes else None
        mismatch = IdempotencyMismatch(key)
        return Reservation(dependencies, f"replay:{uuid.uuid4().hex}", lambda: max_bytes, lambda *_: mismatch)
    limit, used = caller.limits.stored_bytes, 0

    def available_bytes() -> int | None:
        nonlocal used
        if limit is None:
            return None
        with transaction(dependencies) as work:
            used = usage.stored_bytes(work.session, caller.project_id)
        return limit - used

    def refused(wanted: int, others: int) -> QuotaExceeded:
        return quotas.storage_exceeded(limit or 0, used + others, wanted)

    return Reservation(dependencies, f"receiving:{caller.project_id}", available_bytes, refused)


def of_upload(dependencies: Dependencies, upload: Upload) -> Reservation:
    """Of a part: the quota counts the upload already. Extending it raises RequestTooLarge, TooManyParts."""

    def available_bytes() -> int:
        with transaction(dependencies) as work:
            return uploads.available_bytes(work.session, upload)

    def refused(wanted: int, _: int) -> Exception:
        return RequestTooLarge(PART_BYTES) if wanted > PART_BYTES else TooManyParts(upload.id)

    return Reservation(dependencies, f"receiving:{upload.id}", available_bytes, refused)


def _answer_of(dependencies: Dependencies, caller: Principal, key: str) -> Json | None:
    with transaction(dependencies) as work:
        return idempotency.stored_answer(work.session, caller.key_id, key)
