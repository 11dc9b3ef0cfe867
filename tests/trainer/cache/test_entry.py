from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from trainer.cache.entry import CorruptEntry, pack, read_file, stored_size, unpack, verify
from trainer.cache.eviction import on_disk
from trainer.families.sd3 import T5_LENGTH

pytestmark = pytest.mark.unit

KEY = "ab" * 32
TENSORS = {
    "mean": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, -2], dtype=torch.float16),
    "brain": torch.tensor([[1.5, -2], [float("inf"), -0.0]], dtype=torch.bfloat16),
    "scalar": torch.tensor(0.1, dtype=torch.bfloat16),
    "no_halves": torch.empty(2, 0, dtype=torch.float16),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_that_are_views_are_packed_as_they_appear(dtype: torch.dtype) -> None:
    view = TENSORS["mean"].to(dtype).t()[1:]
    assert torch.equal(unpack(bytearray(pack(KEY, {"mean": view})))["mean"], view)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_value_of_half_precision_comes_back_to_the_bit(dtype: torch.dtype) -> None:
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    unpacked = unpack(bytearray(pack(KEY, {"all": values})))["all"]
    assert torch.equal(unpacked.view(torch.int16), values.view(torch.int16))


def test_the_header_tells_the_size_of_the_whole_entry(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    for tensors in (TENSORS, {"one": torch.zeros(5)}, {}):
        content = pack(KEY, tensors)
        path.write_bytes(content)
        assert stored_size(path) == len(content)
        for damaged in (content[:-1], content + b"0", content[:20], content[:3], b""):
            if damaged != content:
                path.write_bytes(damaged)
                with pytest.raises(CorruptEntry):
                    stored_size(path)


# At 1024 x 1024: what the real networks' encoders give, by shape. Normal values stand for theirs.
SIZES: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], float]] = {
    "sdxl": ({"hidden": (77, 2048), "pooled": (1280,)}, {"mean": (4, 128, 128), "std": (4, 128, 128)}, 45e9),
    "sd3": (
        {"clip": (77, 2048), "pooled": (2048,), "t5": (T5_LENGTH, 4096)},
        {"mean": (16, 128, 128), "std": (16, 128, 128)},
        200e9,
    ),
}


@pytest.mark.parametrize("family", SIZES)
def test_fifty_thousand_pairs_of_1024_pixels_take_at_most_the_promised_disk(family: str) -> None:
    prompt, image, at_most = SIZES[family]
    values = torch.Generator().manual_seed(1)
    prompts = {name: torch.randn(shape, generator=values).bfloat16() for name, shape in prompt.items()}
    moments = {name: torch.randn(shape, generator=values).half() for name, shape in image.items()}
    pair = on_disk(len(pack(KEY, prompts))) + 2 * on_disk(len(pack(KEY, moments)))
    assert 0.7 * at_most < 50_000 * pair < at_most


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
