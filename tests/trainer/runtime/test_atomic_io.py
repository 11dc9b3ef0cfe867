from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trainer.runtime.atomic_io import atomic_directory, remove_partial_files, write_atomically
from trainer.runtime.errors import DiskFull
from trainer.runtime.locks import file_lock

pytestmark = pytest.mark.unit


def test_a_directory_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/file").read_text() == "x"


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_directory(tmp_path / "out") as partial:
            (partial / "file").write_text("x")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fill() -> None:
        with atomic_directory(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match="out"):
        fill()
    assert path.read_bytes() == b"old"


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".out.1234.partial").mkdir()
    (tmp_path / "out").mkdir()
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@dataclass
class Calls:
    """What was synced, in bytes at that moment (None for a directory), and what got its name, in order."""

    seen: list[tuple[str, Path, int | None]] = field(default_factory=list)

    def synced(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.seen.append(("sync", path, None if path.is_dir() else os.fstat(descriptor).st_size))
            call(descriptor)

        return fsync

    def renamed(self, call: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def rename(source: Path, target: Path) -> None:
            self.seen.append(("name", Path(target), None))
            call(source, target)

        return rename


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Records system calls and passes them on."""
    calls = Calls()
    monkeypatch.setattr(os, "fsync", calls.synced(os.fsync))
    monkeypatch.setattr(os, "replace", calls.renamed(os.replace))
    monkeypatch.setattr(os, "rename", calls.renamed(os.rename))
    return calls


def test_a_file_is_on_disk_whole_before_it_gets_its_name(tmp_path: Path, calls: Calls) -> None:
    write_atomically(tmp_path / "file", b"content")
    (kind, partial, size), *later = calls.seen
    assert (kind, size) == ("sync", len(b"content"))
    assert (partial.parent, partial.suffix) == (tmp_path, ".partial")
    assert later[0] == ("name", tmp_path / "file", None)


def test_a_file_that_may_be_lost_in_a_power_cut_is_not_synced(tmp_path: Path, calls: Calls) -> None:
    write_atomically(tmp_path / "file", b"content", sync=False)
    assert calls.seen == [("name", tmp_path / "file", None)]


def test_a_directory_is_on_disk_whole_before_it_gets_its_name_and_its_name_after(tmp_path: Path, calls: Calls) -> None:
    with atomic_directory(tmp_path / "out") as partial:
        (partial / "one").write_bytes(b"1")
        (partial / "two").write_bytes(b"22")
    *files, itself, named, parent = calls.seen
    assert sorted(files) == [("sync", partial / "one", 1), ("sync", partial / "two", 2)]
    assert itself == ("sync", partial, None)
    assert named == ("name", tmp_path / "out", None)
    assert parent == ("sync", tmp_path, None)


WRITE_ON = """
import sys
from pathlib import Path
from trainer.runtime.atomic_io import write_atomically
while True:
    write_atomically(Path(sys.argv[1]), bytes(2**25), sync=False)
"""


def size_of(path: Path) -> int:
    """0 also for a file that has its name by now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def stopped_while_writing(writer: subprocess.Popen[bytes], folder: Path) -> Path:
    """The partial file of a writer that SIGSTOP holds up in the middle."""
    while True:
        if any(size_of(path) for path in folder.glob(".*.partial")):
            writer.send_signal(signal.SIGSTOP)
            time.sleep(0.02)
            found = [path for path in folder.glob(".*.partial") if path.stat().st_size]
            if found:
                return found[0]
            writer.send_signal(signal.SIGCONT)


def test_a_partial_file_is_locked_for_as_long_as_its_writer_lives(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITE_ON, str(tmp_path / "file")]) as writer:
        try:
            partial = stopped_while_writing(writer, tmp_path)
            with pytest.raises(BlockingIOError), file_lock(partial, wait=False):
                pass
        finally:
            writer.kill()
    with file_lock(partial, wait=False):
        pass
