"""Parts' bytes, in a directory and in an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore, ObjectStore

from store.blobs import upload_parts
from store.blobs.blobs import Blobs, StoredBlob, hash_file
from store.blobs.upload_parts import CHUNK
from store.errors import BlobMissing

pytestmark = pytest.mark.unit


@pytest.fixture(params=["directory", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "object store":
        return MemoryStore()
    (tmp_path / "blobs").mkdir()
    return LocalStore(prefix=tmp_path / "blobs")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(store: ObjectStore, upload_id: str, part_id: str, size: int) -> list[bytes]:
    return list(upload_parts.stream(store, upload_id, part_id, size))


def test_a_part_comes_back_in_bounded_chunks(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(2 * CHUNK + 5)
    upload_parts.save(store, "upload-a", "part-1", written(tmp_path / "part", content))
    chunks = read(store, "upload-a", "part-1", len(content))
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 5]
    assert b"".join(chunks) == content


def test_removal_takes_every_part_of_one_upload_and_may_be_repeated(store: ObjectStore, tmp_path: Path) -> None:
    for upload_id, part_id in (("upload-a", "part-1"), ("upload-a", "part-2"), ("upload-ab", "part-3")):
        upload_parts.save(store, upload_id, part_id, written(tmp_path / "part", b"x"))
    for _ in range(2):
        upload_parts.remove(store, "upload-a")
        for part_id in ("part-1", "part-2"):
            with pytest.raises(BlobMissing):
                read(store, "upload-a", part_id, 1)
    assert read(store, "upload-ab", "part-3", 1) == [b"x"]
    if isinstance(store, LocalStore):
        assert not (tmp_path / "blobs/uploads/upload-a").exists()


def test_one_part_may_be_discarded_and_discarded_again(store: ObjectStore, tmp_path: Path) -> None:
    for part_id in ("part-1", "part-2"):
        upload_parts.save(store, "upload-a", part_id, written(tmp_path / "part", b"x"))
    for _ in range(2):
        upload_parts.discard(store, "upload-a", "part-1")
    with pytest.raises(BlobMissing):
        read(store, "upload-a", "part-1", 1)
    assert read(store, "upload-a", "part-2", 1) == [b"x"]


def test_a_file_next_to_the_store_is_moved_and_not_written_again(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path / 'blobs'}")
    path = written(tmp_path / "received", b"abc")
    inode, blob = path.stat().st_ino, hash_file(path)
    blobs.take_file(path, blob)
    [stored] = [found for found in (tmp_path / "blobs").rglob("*") if found.is_file()]
    assert (stored.stat().st_ino, stored.name) == (inode, blob.sha256)
    assert not path.exists()


def test_bytes_that_are_stored_already_are_left_as_they_are(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path / 'blobs'}")
    blob = blobs.put_bytes(b"abc")
    path = written(tmp_path / "received", b"abc")
    blobs.take_file(path, blob)
    assert path.exists()
    assert blobs.read(blob.sha256) == b"abc"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A file on another filesystem than ``tmp_path``."""
    path = Path("/dev/shm") / f"pairtune-{os.getpid()}"  # noqa: S108 - another filesystem is the point
    if not path.parent.is_dir() or path.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second filesystem here")
    yield written(path, b"abc")
    path.unlink(missing_ok=True)


def test_a_file_on_another_filesystem_is_copied(tmp_path: Path, elsewhere: Path) -> None:
    blobs = Blobs(f"file://{tmp_path / 'blobs'}")
    blob: StoredBlob = hash_file(elsewhere)
    blobs.take_file(elsewhere, blob)
    assert blobs.read(blob.sha256) == b"abc"
