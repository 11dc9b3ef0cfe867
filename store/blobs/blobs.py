"""Blobs: immutable bytes under their SHA-256, in a local directory or any object store that obstore speaks to."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from store.blobs.full_disk import says_full_disk
from store.blobs.placement import THREADS, move_file, move_files, put, sync
from store.errors import BlobMissing

if TYPE_CHECKING:
    from obstore import ObjectMeta

CHUNK = 1024 * 1024
FOLDER = "sha256"
PROBE = "ready"  # next to the blobs
SIGNED_FOR = timedelta(minutes=5)  # a download has to begin within it, not to end
RENEWED_AFTER = 3600.0  # seconds; an older blob is made young when its bytes are stored again


log = structlog.get_logger()


@dataclass(frozen=True)
class StoredBlob:
    sha256: str
    bytes: int


def reason_of(error: Exception) -> str:
    """Why a store gives no answer, in a line: obstore's own text has thirty, and does not say that HTTP is off."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "builder error" in first and "http://" in first:
        return f"{first}. Plain HTTP is refused: use https://, or set AWS_ALLOW_HTTP=true if the network is yours"
    return first


Renewing = Callable[[], AbstractContextManager[None]]


class Blobs:
    """A blob appears whole or not at all (obstore renames a temporary file), and outlasts a power cut; the same bytes
    are stored once.

    ``renewing`` keeps a sweep out while an old blob is made young again (see sweep_lock). A young one no sweep
    touches, so whoever stores bytes has hours to commit the row that names them.
    """

    def __init__(self, url: str, renewing: Renewing = nullcontext) -> None:
        self._renewing = renewing
        if url.startswith("file://"):
            directory = Path(url.removeprefix("file://"))
            directory.mkdir(parents=True, exist_ok=True)
            self.store: ObjectStore = LocalStore(prefix=directory)
        else:
            self.store = from_url(url)

    def reachable(self) -> bool:
        """Whether the store takes and gives bytes: something is written to it and read again."""
        try:
            if isinstance(self.store, LocalStore):
                # Not by the store, which would make a directory that is gone.
                with tempfile.TemporaryFile(dir=self.store.prefix) as probe:
                    return probe.write(b"ready") == 5
            obstore.put(self.store, PROBE, b"ready")
            return bytes(obstore.get(self.store, PROBE).bytes()) == b"ready"
        except (BaseError, OSError) as error:
            if says_full_disk(error):
                return True
            log.warning("blobs.no_answer", reason=reason_of(error))
            return False

    def put_bytes(self, content: bytes) -> StoredBlob:
        blob = StoredBlob(hashlib.sha256(content).hexdigest(), len(content))
        self._save(blob, lambda: put(self.store, _path(blob.sha256), content))
        return blob

    def put_file(self, path: Path) -> StoredBlob:
        """Memory stays bounded by the upload's chunk size."""
        blob = hash_file(path)
        self._save(blob, lambda: self._put(path, blob.sha256))
        return blob

    def take_file(self, path: Path, blob: StoredBlob) -> None:
        """Store a file of ours that was hashed while it was written. ``path`` may be gone afterwards."""
        self._save(blob, lambda: move_file(self.store, path, _path(blob.sha256)))

    def take_files(self, files: Sequence[tuple[Path, StoredBlob]]) -> None:
        """As ``take_file``, many at once: the disk is waited for once for all of them, not twice for each."""
        missing: list[tuple[Path, str]] = []
        young: list[str] = []
        with ThreadPoolExecutor(THREADS) as pool:
            heads = list(pool.map(lambda file: self._head(file[1].sha256), files))
        for (path, blob), head in zip(files, heads, strict=True):
            if head is None or head["size"] != blob.bytes:
                missing.append((path, _path(blob.sha256)))
            elif _age(head) > RENEWED_AFTER:
                self.take_file(path, blob)
            else:
                young.append(_path(blob.sha256))
        move_files(self.store, missing, young)

    def exists(self, sha256: str) -> bool:
        return self._head(sha256) is not None

    def size(self, sha256: str) -> int:
        """In bytes."""
        found = self._head(sha256)
        if found is None:
            raise BlobMissing(sha256)
        return found["size"]

    def read(self, sha256: str) -> bytes:
        return b"".join(self.stream(sha256))

    def stream(self, sha256: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start``, in chunks of at most 1 MiB; ``length`` bounds how many."""
        size = self.size(sha256)
        end = size if length is None else min(size, start + length)
        return self._chunks(sha256, start, end)

    def signed_url(self, sha256: str) -> str | None:
        """Where whoever holds the URL reads the blob straight from S3, for ``SIGNED_FOR``; None for other stores."""
        if not isinstance(self.store, S3Store):
            return None
        if not self.exists(sha256):
            raise BlobMissing(sha256)
        return obstore.sign(self.store, "GET", _path(sha256), SIGNED_FOR)

    def fetch(self, sha256: str, path: Path) -> None:
        """Copy to a local file and check the bytes on the way; a damaged blob raises and leaves no file."""
        digest = hashlib.sha256()
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as out:
            for chunk in self.stream(sha256):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != sha256:
            partial.unlink()
            raise BlobMissing(sha256)
        partial.replace(path)

    def older_than(self, seconds: float) -> Iterator[str]:
        """The SHA-256 of every blob that was written or renewed longer ago."""
        before = datetime.now(UTC) - timedelta(seconds=seconds)
        for batch in obstore.list(self.store, prefix=FOLDER):
            for item in batch:
                name = item["path"].rpartition("/")[2]
                if item["last_modified"] < before and item["path"] == _path(name):
                    yield name

    def remove_old(self, sha256: str, seconds: float) -> int | None:
        """Remove the blob if it is older than that; returns its bytes then. The caller keeps writers out."""
        found = self._head(sha256)
        if found is None or _age(found) < seconds:
            return None
        obstore.delete(self.store, _path(sha256))
        return found["size"]

    def _save(self, blob: StoredBlob, write: Callable[[], object]) -> None:
        """What has another length is no such blob, whatever its name: a disk lost its end."""
        sha256, found = blob.sha256, self._head(blob.sha256)
        if found is None or found["size"] != blob.bytes:
            write()
        elif _age(found) > RENEWED_AFTER:
            with self._renewing():
                self._renew(sha256, write)
        else:
            sync(self.store, _path(sha256))  # somebody else may have stored it just now, and not have synced it yet

    def _renew(self, sha256: str, write: Callable[[], object]) -> None:
        """An object store knows when bytes were written, not when they were wanted: they are written again."""
        if isinstance(self.store, LocalStore) and self.store.prefix is not None:
            with suppress(FileNotFoundError):  # swept before the lock was ours
                os.utime(Path(self.store.prefix) / _path(sha256))
                return
        write()

    def _put(self, path: Path, sha256: str) -> None:
        with path.open("rb") as content:
            put(self.store, _path(sha256), content)

    def _head(self, sha256: str) -> ObjectMeta | None:
        try:
            return obstore.head(self.store, _path(sha256))
        except (NotFoundError, FileNotFoundError):
            return None

    def _chunks(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            length = min(CHUNK, end - start)
            yield bytes(obstore.get_range(self.store, _path(sha256), start=start, length=length))
            start += length


def hash_file(path: Path) -> StoredBlob:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    return StoredBlob(digest.hexdigest(), path.stat().st_size)


def _age(found: ObjectMeta) -> float:
    """Seconds, by this machine's clock and the store's: what hangs on it is hours."""
    return (datetime.now(UTC) - found["last_modified"]).total_seconds()


def _path(sha256: str) -> str:
    return f"{FOLDER}/{sha256[:2]}/{sha256}"
