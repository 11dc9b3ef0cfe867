from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.cache import entry
from trainer.cache.cache import Cache, key_of
from trainer.cache.entry import pack
from trainer.runtime.errors import CacheEntryLost, CacheTooSmall

pytestmark = pytest.mark.unit

KEY, OTHER = key_of(kind="test"), key_of(kind="other")
ROOT = Path(__file__).parents[3]


def entry_of(folder: Path) -> Path:
    (entry,) = folder.rglob("*.safetensors")
    return entry


def test_a_key_changes_with_any_dependency_and_not_with_their_order() -> None:
    assert key_of(image="a", size=[1, 2]) == key_of(size=[1, 2], image="a")
    assert len({key_of(image="a", size=[1, 2]), key_of(image="a", size=[2, 1]), key_of(image="b", size=[1, 2])}) == 3


def test_what_was_written_is_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert not cache.has(KEY)
    cache.write(KEY, {"mean": torch.arange(3.0)})
    assert cache.has(KEY)
    assert torch.equal(cache.read(KEY)["mean"], torch.arange(3.0))
    assert torch.equal(Cache(tmp_path).read(KEY)["mean"], torch.arange(3.0))


def test_what_is_written_over_a_read_entry_is_read_next(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, {"mean": torch.zeros(3)})
    cache.read(KEY)
    cache.write(KEY, {"mean": torch.ones(3)})
    assert torch.equal(cache.read(KEY)["mean"], torch.ones(3))


def flip_a_bit(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[-5] ^= 4
    entry.write_bytes(content)


def truncate(entry: Path) -> None:
    os.truncate(entry, entry.stat().st_size - 10)


def empty(entry: Path) -> None:
    os.truncate(entry, 0)


def make_a_directory(entry: Path) -> None:
    entry.unlink()
    (entry / "within").mkdir(parents=True)


def put_another_entry(entry: Path) -> None:
    entry.write_bytes(pack(OTHER, {"mean": torch.arange(300.0)}))


def remove(entry: Path) -> None:
    entry.unlink()


SAME_LENGTH = [flip_a_bit, put_another_entry]
DAMAGES = [*SAME_LENGTH, truncate, empty, make_a_directory, remove]


@pytest.mark.parametrize("damage", [truncate, empty, make_a_directory, remove])
def test_an_entry_of_another_length_counts_as_missing_and_is_replaced(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    Cache(tmp_path).write(KEY, {"mean": torch.arange(300.0)})
    damage(entry_of(tmp_path))
    cache = Cache(tmp_path)
    assert not cache.has(KEY)
    cache.write(KEY, {"mean": torch.arange(300.0)})
    assert Cache(tmp_path).has(KEY)
    assert torch.equal(Cache(tmp_path).read(KEY)["mean"], torch.arange(300.0))


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_entry_damaged_before_its_first_read_is_named_and_the_cure_reported(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    Cache(tmp_path).write(KEY, {"mean": torch.arange(300.0)})
    damage(entry_of(tmp_path))
    with pytest.raises(CacheEntryLost, match=f"{KEY}.*Run again") as raised:
        Cache(tmp_path).read(KEY)
    assert raised.value.code == "cache_entry_lost"


@pytest.mark.parametrize("damage", [truncate, empty, make_a_directory, remove])
def test_an_entry_that_goes_in_mid_run_is_reported_and_then_missing(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, {"mean": torch.arange(300.0)})
    assert cache.has(KEY)
    damage(entry_of(tmp_path))
    with pytest.raises(CacheEntryLost):
        cache.read(KEY)
    assert not cache.has(KEY)


@pytest.mark.parametrize("damage", SAME_LENGTH)
def test_an_entry_whose_content_is_damaged_is_removed_at_its_first_read_and_can_be_replaced(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    Cache(tmp_path).write(KEY, {"mean": torch.arange(300.0)})
    damage(entry_of(tmp_path))
    cache = Cache(tmp_path)
    assert cache.has(KEY)
    with pytest.raises(CacheEntryLost):
        cache.read(KEY)
    assert not cache.has(KEY)
    assert not Cache(tmp_path).has(KEY)
    cache.write(KEY, {"mean": torch.arange(300.0)})
    assert torch.equal(Cache(tmp_path).read(KEY)["mean"], torch.arange(300.0))


def test_one_damaged_entry_has_all_of_the_runs_entries_verified_so_that_one_more_attempt_is_enough(
    tmp_path: Path,
) -> None:
    keys = [key_of(image=index) for index in range(4)]
    for key in keys:
        Cache(tmp_path).write(key, {"mean": torch.arange(300.0)})
    for key in keys[1:3]:
        flip_a_bit(tmp_path / key[:2] / f"{key}.safetensors")
    with Cache(tmp_path) as cache:
        cache.pin(keys)
        assert all(cache.has(key) for key in keys)
        with pytest.raises(CacheEntryLost):
            cache.read(keys[1])
    assert [Cache(tmp_path).has(key) for key in keys] == [True, False, False, True]


def test_an_entry_is_read_for_its_size_alone_until_it_is_needed_and_verified_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path).write(KEY, {"mean": torch.arange(300.0)})
    verified: list[str] = []
    verify = entry.verify

    def counted(key: str, content: bytearray) -> None:
        verified.append(key)
        verify(key, content)

    monkeypatch.setattr("trainer.cache.cache.verify", counted)
    monkeypatch.setattr("trainer.cache.cache.IN_MEMORY", 0)
    cache = Cache(tmp_path)
    assert cache.has(KEY)
    assert verified == []
    for _ in range(3):
        assert torch.equal(cache.read(KEY)["mean"], torch.arange(300.0))
    assert verified == [KEY]


def test_a_reader_may_add_to_what_it_got(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, {"mean": torch.zeros(3)})
    cache.read(KEY)["std"] = torch.ones(3)
    assert cache.read(KEY).keys() == {"mean"}


def write_often(folder: Path) -> None:
    for _ in range(50):
        Cache(folder).write(KEY, {"mean": torch.arange(3000.0)})


def test_two_writers_of_one_entry_never_show_half_of_it(tmp_path: Path) -> None:
    write_often(tmp_path)
    writers = [multiprocessing.get_context("fork").Process(target=write_often, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert torch.equal(Cache(tmp_path).read(KEY)["mean"], torch.arange(3000.0))
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(list(tmp_path.rglob("*"))) == 2  # the folder and the entry: nothing partial is left


def test_a_run_that_fits_is_not_refused(tmp_path: Path) -> None:
    with Cache(tmp_path, 2**20) as cache:
        cache.pin([KEY])
        cache.write(KEY, {"mean": torch.zeros(3)})
        cache.enforce_bound()
        cache.require_within_bound(2**20 - 4096)
        with pytest.raises(CacheTooSmall):
            cache.require_within_bound(2**20 - 4095)


def test_a_run_that_needs_more_than_the_bound_is_refused_by_how_much(tmp_path: Path) -> None:
    keys = [key_of(image=index) for index in range(8)]
    with Cache(tmp_path, 2**20) as cache:
        cache.pin(keys)
        for key in keys:
            cache.write(key, {"mean": torch.zeros(2**16)})  # 256 KiB, and a block for the header
        with pytest.raises(CacheTooSmall, match=r"about 0\.00198 GiB .* bound is 0\.000977 GiB") as refused:
            cache.enforce_bound()
    assert refused.value.code == "cache_too_small"


def test_what_a_run_needed_beyond_the_bound_goes_with_its_end(tmp_path: Path) -> None:
    keys = [key_of(image=index) for index in range(8)]
    with Cache(tmp_path, 2**20) as cache:
        cache.pin(keys)
        for key in keys:
            cache.write(key, {"mean": torch.zeros(2**16)})
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) < 2**20
    assert any(Cache(tmp_path).has(key) for key in keys)


def test_a_cache_of_no_bound_keeps_everything(tmp_path: Path) -> None:
    keys = [key_of(image=index) for index in range(8)]
    with Cache(tmp_path) as cache:
        cache.pin(keys)
        for key in keys:
            cache.write(key, {"mean": torch.zeros(2**16)})
        cache.enforce_bound()
    assert all(Cache(tmp_path).has(key) for key in keys)


def test_a_using_run_makes_entries_recent(tmp_path: Path) -> None:
    for key in (KEY, OTHER):
        Cache(tmp_path).write(key, {"mean": torch.zeros(3)})
        os.utime(tmp_path / key[:2] / f"{key}.safetensors", (1, 1))
    Cache(tmp_path).has(KEY)
    Cache(tmp_path).read(OTHER)
    assert all(path.stat().st_mtime > 1 for path in tmp_path.rglob("*.safetensors"))


FILL = """
import resource, sys
from pathlib import Path
import torch
from trainer.cache.cache import Cache, key_of
from trainer.runtime.errors import DiskFull
folder, pinned = Path(sys.argv[1]), sys.argv[2] == "pinned"
with Cache(folder) as cache:
    for index in range(40):  # 2.5 MiB on a disk of 1 MiB
        key = key_of(image=index)
        if pinned:
            cache.pin([key])
        try:
            cache.write(key, {"mean": torch.full((2**14,), float(index))})
        except DiskFull as error:
            print("full at", index, error.code)
            break
        assert cache.read(key)["mean"][0] == index
    else:
        print("all written")
print(sum(1 for _ in folder.rglob("*.partial")), "partial")
"""


def fill_a_small_disk(mount_point: Path, how: str) -> list[str]:
    """In a mount namespace of its own, so that nobody else sees the disk of 1 MiB."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    script = 'mount -t tmpfs -o size=1m tmpfs "$0" || exit 77; exec "$@"'
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        str(mount_point),
        sys.executable,
        "-c",
        FILL,
        str(mount_point),
        how,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip("needs the right to mount")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_on_a_full_disk_what_nobody_needs_is_evicted(tmp_path: Path) -> None:
    assert fill_a_small_disk(tmp_path, "unpinned") == ["all written", "0 partial"]


def test_on_a_full_disk_of_needed_entries_the_run_ends_and_says_so(tmp_path: Path) -> None:
    full, partial = fill_a_small_disk(tmp_path, "pinned")
    assert full in [f"full at {index} disk_full" for index in range(13, 16)]
    assert partial == "0 partial"
