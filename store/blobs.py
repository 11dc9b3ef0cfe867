"""Blobs: immutable bytes under their SHA-256, in a local directory or any object store that obstore speaks to."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from store.errors import BlobMissing
from store.full_disk import says_full_disk
from store.placement import PARTS_AT_ONCE, place

CHUNK = 1024 * 1024
PROBE = "ready"  # beside the blobs


@dataclass(frozen=True)
class StoredBlob:
    sha256: str
    bytes: int


class Blobs:
    """A blob appears whole or not at all (obstore writes beside and renames); the same bytes are stored once."""

    def __init__(self, url: str) -> None:
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
            return says_full_disk(error)

    def put_bytes(self, content: bytes) -> StoredBlob:
        blob = StoredBlob(hashlib.sha256(content).hexdigest(), len(content))
        if not self.exists(blob.sha256):
            obstore.put(self.store, _path(blob.sha256), content)
        return blob

    def put_file(self, path: Path) -> StoredBlob:
        """Memory stays bounded by the upload's chunk size."""
        blob = hash_file(path)
        if not self.exists(blob.sha256):
            with path.open("rb") as content:
                obstore.put(self.store, _path(blob.sha256), content, max_concurrency=PARTS_AT_ONCE)
        return blob

    def take_file(self, path: Path, blob: StoredBlob) -> None:
        """Store a file of ours that was hashed while it was written. ``path`` may be gone afterwards."""
        if not self.exists(blob.sha256):
            place(self.store, path, _path(blob.sha256))

    def exists(self, sha256: str) -> bool:
        try:
            obstore.head(self.store, _path(sha256))
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    def size(self, sha256: str) -> int:
        """In bytes."""
        try:
            return obstore.head(self.store, _path(sha256))["size"]
        except (NotFoundError, FileNotFoundError) as error:
            raise BlobMissing(sha256) from error

    def read(self, sha256: str) -> bytes:
        return b"".join(self.stream(sha256))

    def stream(self, sha256: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start``, in chunks of at most 1 MiB; ``length`` bounds how many."""
        size = self.size(sha256)
        end = size if length is None else min(size, start + length)
        return self._chunks(sha256, start, end)

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

    def _chunks(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            length = min(CHUNK, end - start)
            yield bytes(obstore.get_range(self.store, _path(sha256), start=start, length=length))
            start += length


def hash_file(path: Path) -> StoredBlob:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    return StoredBlob(digest.hexdigest(), path.stat().st_size)


def _path(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256}"
