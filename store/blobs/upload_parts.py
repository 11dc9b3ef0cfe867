"""The bytes of an upload's parts, in the blob store under ``uploads/<upload>/<part>`` until the upload ends.

They lie in the store, and not with the process that received them, so that any API process can complete the upload.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import LocalStore, ObjectStore

from store.blobs.placement import move_file
from store.errors import BlobMissing

CHUNK = 1024 * 1024


def save(store: ObjectStore, upload_id: str, part_id: str, path: Path) -> None:
    """``path`` may be gone afterwards."""
    move_file(store, path, f"{_folder(upload_id)}/{part_id}")


def stream(store: ObjectStore, upload_id: str, part_id: str, size: int) -> Iterator[bytes]:
    """The part's ``size`` bytes, in chunks of at most 1 MiB. BlobMissing once the upload has ended."""
    key = f"{_folder(upload_id)}/{part_id}"
    for start in range(0, size, CHUNK):
        try:
            yield bytes(obstore.get_range(store, key, start=start, length=min(CHUNK, size - start)))
        except (NotFoundError, FileNotFoundError) as error:
            raise BlobMissing(part_id) from error


def discard(store: ObjectStore, upload_id: str, part_id: str) -> None:
    """One part, if it is there."""
    with contextlib.suppress(NotFoundError, FileNotFoundError):
        obstore.delete(store, f"{_folder(upload_id)}/{part_id}")


def remove(store: ObjectStore, upload_id: str) -> None:
    """Everything that was stored for the upload; nothing there is no error."""
    if isinstance(store, LocalStore):
        # Object stores know no folders; here one would stay behind, empty.
        shutil.rmtree(Path(store.prefix or "/") / _folder(upload_id), ignore_errors=True)
        return
    for batch in obstore.list(store, prefix=_folder(upload_id)):
        obstore.delete(store, [item["path"] for item in batch])


def _folder(upload_id: str) -> str:
    return f"uploads/{upload_id}"
