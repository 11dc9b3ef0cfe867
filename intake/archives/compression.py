"""Unpacking a compressed tar to disk, stopping at the limits: gzip and Zstandard."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from intake.archives.entries import check_total
from intake.errors import ArchiveError
from intake.limits import Limits
from intake.memory import arrow

_CHUNK = 2**20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def expand_gzip(source: BinaryIO, packed: int, target: Path, limits: Limits) -> None:
    """Unpack ``source`` (``packed`` bytes) to ``target``. Raises ArchiveError."""
    try:
        with gzip.GzipFile(fileobj=source) as unpacked:
            _copy(unpacked, packed, target, limits)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArchiveError("archive_unreadable", f"is a damaged gzip file ({error}); upload it again") from error


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


EXPANDERS: Mapping[bytes, Callable[[BinaryIO, int, Path, Limits], None]] = {
    b"\x1f\x8b": expand_gzip,
    b"\x28\xb5\x2f\xfd": expand_zstandard,
}
