from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from trainer.cache.cache import Cache, key_of
from trainer.cache.eviction import LOCK, evict
from trainer.cache.pins import PINS, Pins, reading_pins
from trainer.runtime.locks import file_lock

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
KEYS = [key_of(image=index) for index in range(10)]
SIZE = 2**16 + 4096  # on disk: 64 KiB of tensors, a block with the header


def path_of(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.safetensors"


def filled(folder: Path, keys: Sequence[str] = KEYS) -> Path:
    """Used in the order given, long ago."""
    for index, key in enumerate(keys):
        Cache(folder).write(key, {"mean": torch.full((2**14,), float(index))})
        os.utime(path_of(folder, key), (1000 + index, 1000 + index))
    return folder


def stored(folder: Path, keys: Sequence[str] = KEYS) -> list[str]:
    return [key for key in keys if path_of(folder, key).exists()]


@contextmanager
def python(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Killed at the end of the block if it still runs."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def reported(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


PIN = """
import sys
from pathlib import Path
from trainer.cache.pins import Pins
pins = Pins(Path(sys.argv[1]))
pins.add(sys.argv[2:])
print("pinned", flush=True)
sys.stdin.read()
"""


def test_nothing_goes_while_all_fits(tmp_path: Path) -> None:
    assert evict(filled(tmp_path), len(KEYS) * SIZE) == 0
    assert stored(tmp_path) == KEYS


def test_what_was_used_longest_ago_goes_first_and_a_little_more_is_freed(tmp_path: Path) -> None:
    filled(tmp_path)
    Cache(tmp_path).has(KEYS[0])
    assert evict(tmp_path, 8 * SIZE) == 3 * SIZE  # 2 too many, and 5% of 8
    assert stored(tmp_path) == [KEYS[0], *KEYS[4:]]


def test_what_a_living_process_pinned_stays_even_beyond_the_bound(tmp_path: Path) -> None:
    with python(PIN, filled(tmp_path), *KEYS[:4]) as other:
        reported(other, "pinned")
        evict(tmp_path, 6 * SIZE)
        assert stored(tmp_path) == [*KEYS[:4], KEYS[9]]
        evict(tmp_path, 0)
        assert stored(tmp_path) == KEYS[:4]


def test_the_pins_of_a_killed_process_hold_nothing_and_are_removed(tmp_path: Path) -> None:
    with python(PIN, filled(tmp_path), *KEYS) as other:
        reported(other, "pinned")
        other.send_signal(signal.SIGKILL)
    evict(tmp_path, 5 * SIZE)
    assert len(stored(tmp_path)) == 4
    assert list((tmp_path / PINS).iterdir()) == []


def test_released_pins_leave_no_file(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    pins.add(KEYS[:2])
    pins.add(KEYS[1:4])
    with reading_pins(tmp_path) as pinned:
        assert pinned == set(KEYS[:4])
    pins.release()
    with reading_pins(tmp_path) as pinned:
        assert pinned == set()
    assert list((tmp_path / PINS).iterdir()) == []


def test_nothing_is_pinned_between_reading_the_pins_and_removing(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    (tmp_path / PINS).mkdir()
    with reading_pins(tmp_path):
        adding = threading.Thread(target=pins.add, args=(KEYS,))
        adding.start()
        adding.join(0.2)
        assert adding.is_alive()
        assert list((tmp_path / PINS).iterdir()) == []
    adding.join()
    with reading_pins(tmp_path) as pinned:
        assert pinned == set(KEYS)
    pins.release()


def test_one_process_at_a_time_evicts_and_the_others_go_on(tmp_path: Path) -> None:
    filled(tmp_path)
    with file_lock(tmp_path / LOCK):
        assert evict(tmp_path, 0) == 0
    assert stored(tmp_path) == KEYS


def test_files_that_are_not_the_caches_stay(tmp_path: Path) -> None:
    filled(tmp_path, KEYS[:1])
    others = [tmp_path / "photo.png", tmp_path / "ab/model.safetensors", tmp_path / "photos" / f"{KEYS[0]}.safetensors"]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_text("mine")
        os.utime(other, (1, 1))
    evict(tmp_path, 0)
    assert stored(tmp_path) == []
    assert all(other.exists() for other in others)


def partial_of(folder: Path, key: str) -> Path:
    path = folder / key[:2] / f".{key}.safetensors.00c0ffee.partial"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    return path


def test_partial_files_go_an_hour_after_their_writer_unless_it_lives(tmp_path: Path) -> None:
    left, fresh, slow = (partial_of(tmp_path, key) for key in KEYS[:3])
    for old in (left, slow):
        os.utime(old, (time.time() - 3700,) * 2)
    with file_lock(slow):
        os.utime(slow, (time.time() - 3700,) * 2)
        evict(tmp_path, 2**30)
    assert [path.exists() for path in (left, fresh, slow)] == [False, True, True]


USE = """
import sys
from pathlib import Path
import torch
from trainer.cache.cache import Cache, key_of
folder, first, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("running", flush=True)
for start in range(first, first + rounds):
    keys = [key_of(image=index % 60) for index in range(start, start + 12)]
    with Cache(folder, 20 * (2**16 + 4096)) as cache:
        cache.pin(keys)
        for key in keys:
            if not cache.has(key):
                cache.write(key, {"mean": torch.full((2**14,), float(int(key[:4], 16)))})
        cache.enforce_bound()
        for key in keys * 2:
            assert cache.read(key)["mean"][7] == int(key[:4], 16)
print("done", flush=True)
"""


@pytest.mark.slow
def test_runs_that_evict_while_others_read_lose_nothing_they_need(tmp_path: Path) -> None:
    with (
        python(USE, tmp_path, 0, 40) as first,
        python(USE, tmp_path, 7, 40) as second,
        python(USE, tmp_path, 31, 40) as third,
    ):
        for process in (first, second, third):
            reported(process, "running")
        for process in (first, second, third):
            reported(process, "done")
    evict(tmp_path, 20 * SIZE)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 20 * SIZE


@pytest.mark.slow
def test_runs_killed_at_any_moment_leave_a_cache_that_works(tmp_path: Path) -> None:
    for number in range(6):
        with python(USE, tmp_path, number * 9, 10_000) as process:
            reported(process, "running")
            time.sleep(0.1 + 0.0173 * number)
            process.send_signal(signal.SIGKILL)
    for path in tmp_path.rglob("*.safetensors"):
        assert Cache(tmp_path).has(path.stem)
    with python(USE, tmp_path, 0, 5) as process:
        reported(process, "running")
        reported(process, "done")
    evict(tmp_path, 20 * SIZE)
    assert len(list(tmp_path.rglob("*.safetensors"))) <= 20
    assert list((tmp_path / PINS).iterdir()) == []


def test_a_long_encoding_phase_evicts_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.cache.cache.SCAN_AFTER", 4 * SIZE)
    cache = Cache(tmp_path, 10 * SIZE)
    most = 0
    for index in range(100):
        cache.write(key_of(image=index), {"mean": torch.zeros(2**14)})
        most = max(most, len(list(tmp_path.rglob("*.safetensors"))))
    assert most <= 10 + 5
