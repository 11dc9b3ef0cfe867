"""The file of a cache entry: safetensors with a checksum of everything else in its metadata.

The checksum is a CRC-32 of the key and of every other byte, header included. It guards against what disks and file
systems do; who may write to the cache could as well write a new checksum. (Of
512 KiB it takes 0.07 ms, SHA-256 0.26 ms.)
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

Tensors = dict[str, Tensor]

_CHECKSUM_KEY, _NO_CHECKSUM = b'"crc32":"', "00000000"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
}


class CorruptEntry(Exception):
    """The file is not the one that was written."""


def pack(key: str, tensors: Mapping[str, Tensor]) -> bytes:
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = bytearray(save(plain, metadata={"crc32": _NO_CHECKSUM}))
    content[_checksum_slice(content)] = _checksum(key, content)
    return bytes(content)


def read_file(path: Path) -> bytearray:
    """Raises OSError."""
    with path.open("rb", buffering=0) as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        view, at = memoryview(content), 0
        while at < len(content) and (count := file.readinto(view[at:])):
            at += count
    return content


def verify(key: str, content: bytearray) -> None:
    """Raises CorruptEntry."""
    where = _checksum_slice(content)
    given, content[where] = bytes(content[where]), _NO_CHECKSUM.encode()
    found = _checksum(key, content)
    content[where] = given
    if found != given:
        raise CorruptEntry("its content is not what was written")


def unpack(content: bytearray) -> Tensors:
    """Tensors that share ``content``, which was verified."""
    start = _body(content)
    header = json.loads(content[8:start])
    return {name: _tensor(content, start, item) for name, item in header.items() if name != "__metadata__"}


def _tensor(content: bytearray, start: int, item: Mapping[str, list[int]]) -> Tensor:
    dtype, shape = _DTYPES[str(item["dtype"])], item["shape"]
    if not prod(shape):
        return torch.empty(shape, dtype=dtype)
    offset = start + item["data_offsets"][0]
    return torch.frombuffer(content, dtype=dtype, count=prod(shape), offset=offset).reshape(shape)


def _body(content: bytearray) -> int:
    """Where the tensors begin: after 8 bytes, little-endian, with the length of the header, and the header."""
    return 8 + int.from_bytes(content[:8], "little")


def _checksum_slice(content: bytearray) -> slice:
    at = content.find(_CHECKSUM_KEY, 0, _body(content))
    if at < 0:
        raise CorruptEntry("it has no checksum of its content")
    start = at + len(_CHECKSUM_KEY)
    return slice(start, start + len(_NO_CHECKSUM))


def _checksum(key: str, content: bytearray) -> bytes:
    return f"{zlib.crc32(content, zlib.crc32(key.encode())):08x}".encode()
