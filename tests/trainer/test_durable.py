from __future__ import annotations

import errno
from pathlib import Path

import pytest

from trainer.durable import sweep, whole_directory, write_file
from trainer.errors import DiskFull

pytestmark = pytest.mark.unit


def test_a_directory_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "out") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/file").read_text() == "x"


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_directory(tmp_path / "out") as partial:
            (partial / "file").write_text("x")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def fill() -> None:
        with whole_directory(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match="out"):
        fill()
    assert path.read_bytes() == b"old"


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".out.1234.partial").mkdir()
    (tmp_path / "out").mkdir()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
