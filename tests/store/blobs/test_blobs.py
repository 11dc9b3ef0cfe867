from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.blobs.blobs import CHUNK, Blobs, StoredBlob
from store.errors import BlobMissing
from store.settings import Settings

pytestmark = pytest.mark.unit

OTHER_DEVICE = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(f"file://{tmp_path / 'blobs'}")


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_a_blob_lies_under_its_sha256_and_the_same_bytes_are_stored_once(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"abc")
    blob = blobs.put_bytes(b"abc")
    # SHA-256 of "abc", FIPS 180-2 appendix B.1.
    assert blob == StoredBlob("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3)
    [stored] = stored_files(tmp_path)
    before = stored.stat().st_mtime_ns
    assert blobs.put_file(tmp_path / "source") == blob
    assert stored_files(tmp_path) == [stored]
    assert stored.stat().st_mtime_ns == before


def test_twenty_writers_of_the_same_bytes_leave_one_whole_blob(blobs: Blobs, tmp_path: Path) -> None:
    content = b"x" * (CHUNK + 1)
    start = threading.Barrier(20)

    def put() -> StoredBlob:
        start.wait()
        return blobs.put_bytes(content)

    with ThreadPoolExecutor(20) as pool:
        digests = {future.result().sha256 for future in [pool.submit(put) for _ in range(20)]}
    assert [path.read_bytes() for path in stored_files(tmp_path)] == [content]
    assert digests == {hashlib.sha256(content).hexdigest()}


def test_nothing_is_left_of_a_write_that_failed(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        blobs.put_file(tmp_path)
    assert stored_files(tmp_path) == []


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (8, 100, b"89"),
        (9, 1, b"9"),
        (10, None, b""),
        (4, 0, b""),
    ],
)
def test_a_stream_gives_exactly_the_range(blobs: Blobs, start: int, length: int | None, expected: bytes) -> None:
    blob = blobs.put_bytes(b"0123456789")
    assert b"".join(blobs.stream(blob.sha256, start=start, length=length)) == expected


def test_a_stream_comes_in_bounded_chunks(blobs: Blobs) -> None:
    blob = blobs.put_bytes(b"a" * (2 * CHUNK + 5))
    assert [len(chunk) for chunk in blobs.stream(blob.sha256)] == [CHUNK, CHUNK, 5]


def test_an_empty_blob_is_a_blob(blobs: Blobs, tmp_path: Path) -> None:
    assert blobs.put_bytes(b"") == StoredBlob(EMPTY, 0)
    assert blobs.exists(EMPTY)
    assert blobs.read(EMPTY) == b""
    blobs.fetch(EMPTY, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


def test_a_fetched_copy_is_checked(blobs: Blobs, tmp_path: Path) -> None:
    blob = blobs.put_bytes(b"good bytes")
    blobs.fetch(blob.sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"good bytes"
    [stored] = stored_files(tmp_path)
    stored.write_bytes(b"bad! bytes")
    with pytest.raises(BlobMissing):
        blobs.fetch(blob.sha256, tmp_path / "second")
    assert not list(tmp_path.glob("second*"))


def test_a_missing_blob_is_said_to_be_missing_before_anything_is_read(blobs: Blobs) -> None:
    assert not blobs.exists("0" * 64)
    with pytest.raises(BlobMissing, match="0" * 64):
        blobs.stream("0" * 64)


def test_a_home_with_a_space_keeps_its_blobs_inside(tmp_path: Path) -> None:
    home = tmp_path / "my home"
    blob = Blobs(Settings(home=home).effective_blob_url).put_bytes(b"abc")
    assert (home / "blobs" / "sha256" / blob.sha256[:2] / blob.sha256).read_bytes() == b"abc"


def test_what_is_stored_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(f"file://{tmp_path}/blobs")
    synced: list[Path] = []
    fsync = os.fsync

    def sync_and_note(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr("store.blobs.placement.os.fsync", sync_and_note)
    stores: list[Callable[[bytes], StoredBlob]] = [
        blobs.put_bytes,
        lambda content: blobs.put_file(written(tmp_path, content)),
    ]
    for number, store in enumerate(stores):
        synced.clear()
        sha256 = store(bytes([number])).sha256
        blob = tmp_path / "blobs" / "sha256" / sha256[:2] / sha256
        assert synced == [blob, blob.parent]


def files_of(folder: Path, contents: list[bytes]) -> list[tuple[Path, StoredBlob]]:
    folder.mkdir(exist_ok=True)
    files = []
    for number, content in enumerate(contents):
        path = folder / str(number)
        path.write_bytes(content)
        files.append((path, StoredBlob(hashlib.sha256(content).hexdigest(), len(content))))
    return files


@pytest.fixture(params=["the blobs' device", "another device", "an object store"])
def many(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Blobs, Path]]:
    """A store, and the folder that files come from."""
    if request.param == "another device":
        if not OTHER_DEVICE.is_dir() or OTHER_DEVICE.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no second device")
        with tempfile.TemporaryDirectory(dir=OTHER_DEVICE) as folder:
            yield Blobs(f"file://{tmp_path / 'blobs'}"), Path(folder)
        return
    url = "memory:///" if request.param == "an object store" else f"file://{tmp_path / 'blobs'}"
    yield Blobs(url), tmp_path / "sources"


def test_many_files_are_stored_at_once_like_one_by_one(many: tuple[Blobs, Path]) -> None:
    blobs, folder = many
    contents = [bytes([number]) * (number + 1) for number in range(100)]
    blobs.put_bytes(contents[7])
    files = files_of(folder, contents)
    blobs.take_files(files)
    assert [blobs.read(blob.sha256) for _, blob in files] == contents
    blobs.take_files(files_of(folder, [*contents[:3], b"more"]))
    assert blobs.read(hashlib.sha256(b"more").hexdigest()) == b"more"
    blobs.take_files([])


def test_one_of_many_that_lost_its_end_or_grew_old_is_stored_again(blobs: Blobs, tmp_path: Path) -> None:
    files = files_of(tmp_path / "sources", [b"whole", b"old"])
    damaged, old = (tmp_path / "blobs" / "sha256" / blob.sha256[:2] / blob.sha256 for _, blob in files)
    blobs.put_bytes(b"whole"), blobs.put_bytes(b"old")
    damaged.write_bytes(b"wh")
    os.utime(old, (0, 0))
    blobs.take_files(files)
    assert damaged.read_bytes() == b"whole"
    assert old.stat().st_mtime > 0


def test_none_of_many_has_its_name_before_it_is_on_the_disk(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what another has just stored is synced for whoever is about to name it."""
    steps: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, Path.replace

    def sync_and_note(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))

    def replace_and_note(path: Path, target: Path) -> Path:
        steps.append(("rename", path))
        return replace(path, target)

    blobs.put_bytes(b"another's")
    monkeypatch.setattr("store.blobs.placement.os.fsync", sync_and_note)
    monkeypatch.setattr(Path, "replace", replace_and_note)
    files = files_of(tmp_path / "sources", [bytes([number]) for number in range(50)])
    blobs.take_files([*files, *files_of(tmp_path / "more", [b"another's"])])
    [(first, blob), *rest] = files
    folder = tmp_path / "blobs" / "sha256" / blob.sha256[:2]
    assert steps[:3] == [("sync", first), ("rename", first), ("sync", folder)]  # whether files can be renamed at all
    steps = steps[3:]
    sources = {path for path, _ in rest}
    assert {path for kind, path in steps[:49] if kind == "sync"} == sources
    assert {path for kind, path in steps[49:98] if kind == "rename"} == sources
    stored = {tmp_path / "blobs" / "sha256" / blob.sha256[:2] for _, blob in rest}
    name = hashlib.sha256(b"another's").hexdigest()
    anothers = tmp_path / "blobs" / "sha256" / name[:2] / name
    assert {path for _, path in steps[98:]} == stored | {anothers, anothers.parent}
    assert len(steps) == 98 + len(stored) + 2  # a folder once, however many files it takes


def written(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


def test_a_blob_that_lost_its_end_is_written_again(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}/blobs")
    sha256 = blobs.put_bytes(b"whole").sha256
    (tmp_path / "blobs" / "sha256" / sha256[:2] / sha256).write_bytes(b"wh")
    blobs.put_bytes(b"whole")
    assert blobs.read(sha256) == b"whole"
