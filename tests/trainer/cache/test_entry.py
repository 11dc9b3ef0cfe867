from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from trainer.cache.entry import CorruptEntry, pack, read_file, unpack, verify

pytestmark = pytest.mark.unit

KEY = "ab" * 32
TENSORS = {
    "mean": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, -2], dtype=torch.float16),
    "brain": torch.tensor([1.5, -2], dtype=torch.bfloat16),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "ids": torch.tensor([[1, 2**40]]),
    "short": torch.tensor([-7], dtype=torch.int32),
    "mask": torch.tensor([True, False, True]),
    "none": torch.empty(0, 5),
}


def test_what_was_packed_is_unpacked_whatever_its_dtype_and_shape() -> None:
    content = bytearray(pack(KEY, TENSORS))
    verify(KEY, content)
    unpacked = unpack(content)
    assert unpacked.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert unpacked[name].dtype == tensor.dtype
        assert torch.equal(unpacked[name], tensor)


def test_an_entry_is_a_safetensors_file() -> None:
    assert torch.equal(load(pack(KEY, TENSORS))["mean"], TENSORS["mean"])


def test_tensors_that_are_views_are_packed_as_they_appear() -> None:
    unpacked = unpack(bytearray(pack(KEY, {"mean": TENSORS["mean"].t()[1:]})))
    assert torch.equal(unpacked["mean"], TENSORS["mean"].t()[1:])


def test_every_flipped_bit_is_found_in_header_and_tensors() -> None:
    content = bytearray(pack(KEY, {"mean": torch.arange(3.0)}))
    for at in range(len(content)):
        for bit in range(8):
            content[at] ^= 1 << bit
            with pytest.raises(CorruptEntry):
                verify(KEY, content)
            content[at] ^= 1 << bit
    verify(KEY, content)


@pytest.mark.parametrize("length", [0, 7, 8, 20, 60, -1])
def test_a_truncated_entry_is_found(length: int) -> None:
    with pytest.raises(CorruptEntry):
        verify(KEY, bytearray(pack(KEY, TENSORS)[:length]))


def test_an_entry_under_the_name_of_another_is_found() -> None:
    with pytest.raises(CorruptEntry, match="not what was written"):
        verify("cd" * 32, bytearray(pack(KEY, TENSORS)))


def test_an_entry_without_a_checksum_is_found() -> None:
    with pytest.raises(CorruptEntry, match="no checksum"):
        verify(KEY, bytearray(save(TENSORS)))


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert read_file(tmp_path / "file") == content


class ShortReads(io.FileIO):
    """A file system that gives at most seven bytes at a time."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:7]) or 0


def test_a_file_that_comes_in_pieces_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "entry"
    path.write_bytes(bytes(range(100)))
    monkeypatch.setattr(Path, "open", lambda self, mode, **_: ShortReads(self, mode))
    assert read_file(path) == bytes(range(100))
