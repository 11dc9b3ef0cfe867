"""Unpacking a compressed tar to disk, stopping at the limits: gzip and Zstandard."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from intake.archives.entries import check_total
from intake.errors import ArchiveError
from intake.limits import Limits
from intake.memory import arrow

GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHUNK = 2**20
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to ask for a gzip header


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def expand_gzip(source: BinaryIO, packed: int, target: Path, limits: Limits) -> None:
    """Unpack ``source`` (``packed`` bytes) to ``target``. Raises ArchiveError."""
    try:
        _copy(_Gzip(source), packed, target, limits)
    except (EOFError, zlib.error) as error:
        raise ArchiveError("archive_unreadable", f"is a damaged gzip file ({error}); upload it again") from error


class _Gzip:
    """All members of the file, one after the other; what follows the last is ignored, as the gzip program does, which
    the standard library's ``gzip`` does not."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._packed = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._member.eof and not self._next_member():
                return b""
            self._packed = self._packed or self._source.read(_CHUNK)
            if not self._packed:
                raise EOFError("it ends before its last member does")
            data = self._member.decompress(self._packed, size)
            self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if data:
                return data

    def _next_member(self) -> bool:
        self._packed += self._source.read(max(0, len(GZIP) - len(self._packed)))
        self._member = zlib.decompressobj(_GZIP_WINDOW) if self._packed.startswith(GZIP) else self._member
        return not self._member.eof


def expand_zstandard(source: BinaryIO, packed: int, target: Path, limits: Limits) -> None:
    """Like ``expand_gzip``. Frames that need a window above 128 MiB are refused, as the zstd program does."""
    pa = arrow()
    with pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd") as unpacked:
        _copy(_Zstandard(unpacked), packed, target, limits)


class _Zstandard:
    """Tells a damaged stream from a failing disk: both are OSError where Arrow reads."""

    def __init__(self, unpacked: Any) -> None:
        self._unpacked = unpacked

    def read(self, size: int, /) -> bytes:
        try:
            # Not read(): in pyarrow 26 it keeps its buffer when it raises, a megabyte for each damaged upload.
            data: bytes = self._unpacked.read_buffer(size).to_pybytes()
            return data
        except (OSError, ValueError, MemoryError) as error:
            text = "is a damaged Zstandard file, or one with a window above 128 MiB; pack it again"
            raise ArchiveError("archive_unreadable", text) from error


def _copy(unpacked: _Readable, packed: int, target: Path, limits: Limits) -> None:
    total = 0
    with target.open("wb") as file:
        while chunk := unpacked.read(_CHUNK):
            total += len(chunk)
            check_total(total, packed, limits)
            file.write(chunk)


def expander(start: bytes) -> Callable[[BinaryIO, int, Path, Limits], None] | None:
    """What unpacks a file with these first bytes. A skippable frame comes first in what pzstd writes."""
    if start.startswith(GZIP):
        return expand_gzip
    skippable = start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5
    return expand_zstandard if start.startswith(ZSTANDARD) or skippable else None
