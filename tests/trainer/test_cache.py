from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from trainer.cache import Cache, key_of

pytestmark = pytest.mark.unit

KEY = key_of(kind="test")


def test_a_key_changes_with_any_dependency_and_not_with_their_order() -> None:
    assert key_of(image="a", size=[1, 2]) == key_of(size=[1, 2], image="a")
    assert len({key_of(image="a", size=[1, 2]), key_of(image="a", size=[2, 1]), key_of(image="b", size=[1, 2])}) == 3


def test_what_was_written_is_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert not cache.has(KEY)
    cache.write(KEY, {"mean": torch.arange(3.0)})
    assert cache.has(KEY)
    assert torch.equal(cache.read(KEY)["mean"], torch.arange(3.0))


def test_a_truncated_entry_counts_as_missing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(KEY, {"mean": torch.arange(300.0)})
    (entry,) = tmp_path.rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-10])
    assert not cache.has(KEY)


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
