"""Listing and reading zip archives that nobody vouches for.

``zipfile`` reads the central directory; entries are inflated here, because ``ZipExtFile`` cuts an entry that is longer
than it declares, and because overlapping entries pass unseen in Python 3.11.
"""

from __future__ import annotations

import functools
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from intake.archives.entries import Entry, Kind, check_count, check_total
from intake.errors import ArchiveError
from intake.findings import printable
from intake.limits import Limits

# The second is that of an empty archive, the third stands before the first entry of one that was to be split.
SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")

# Bytes of central directory per entry: 46 fixed, then the path and extra fields.
_DIRECTORY_BYTES = 256
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
_UTF8 = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field: a version, the CRC-32 of the name in the header, the name in UTF-8


def list_zip(file: BinaryIO, length: int, limits: Limits) -> list[Entry]:
    """Entries in the directory's order. ``file`` must stay open while entries are read. Raises ArchiveError."""
    infos = _directory(file, limits)
    check_count(len(infos), limits)
    check_total(sum(info.file_size for info in infos), length, limits)
    _check_overlap(infos, length)
    return [
        Entry(
            name,
            _kind(info),
            info.file_size,
            functools.partial(_read, file, info),
            functools.partial(_start, file, info),
        )
        for name, info in zip(_names(infos), infos, strict=True)
    ]


@dataclass(frozen=True)
class _BoundedReads:
    """The file as ``zipfile`` sees it: it asks for the whole central directory in one read."""

    file: BinaryIO
    limit: int

    def read(self, size: int = -1, /) -> bytes:
        if size > self.limit:
            raise ArchiveError("archive_limits", "has an oversized table of contents; upload it in several parts")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True


def _directory(file: BinaryIO, limits: Limits) -> list[zipfile.ZipInfo]:
    reads = _BoundedReads(file, limits.archive_entries * _DIRECTORY_BYTES)
    try:
        with zipfile.ZipFile(reads) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error) as error:
        raise ArchiveError(
            "archive_unreadable", f"is a damaged zip file ({printable(str(error))}); pack it again"
        ) from error


def _check_overlap(infos: Sequence[zipfile.ZipInfo], length: int) -> None:
    """Entries that share bytes let a small file unpack to a huge one (the "better zip bomb")."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveError("archive_limits", "has entries that overlap; pack it again")
        end = info.header_offset + _LOCAL_HEADER.size + info.compress_size
    if end > length:
        raise ArchiveError("archive_unreadable", "ends before its last entry does; upload it again")


def _names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Names with a NUL kept (``filename`` is cut there), from where they are in Unicode: the extra field, or the header
    where macOS and others forgot to say so. Bytes that are no UTF-8 become unpaired surrogates; if some names have such
    bytes, the program did not write UTF-8, and what looks like it in other names is chance ("\u56fe\u7247" in GBK)."""
    names: list[str | bytes] = []
    for info in infos:
        raw = b"" if info.flag_bits & _UTF8 else info.orig_filename.encode("cp437")  # as zipfile decoded it
        names.append((_unicode_path(info.extra, raw) or raw) if raw else info.orig_filename)
    codec = "utf-8" if all(_is_utf8(name) for name in names if isinstance(name, bytes)) else "ascii"
    return [name if isinstance(name, str) else name.decode(codec, "surrogateescape") for name in names]


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """A name whose checksum is another's was left behind by a program that renamed the entry."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + size]
        if kind == _UNICODE_PATH and size > 5 and field[:5] == b"\x01" + struct.pack("<I", zlib.crc32(raw)):
            return field[5:].decode("utf-8", "surrogateescape")
        at += 4 + size
    return None


def _kind(info: zipfile.ZipInfo) -> Kind:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode == stat.S_IFLNK:
        return "symbolic link"
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "device or special file"
    return "folder" if info.orig_filename.endswith("/") else "file"


def _read(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError("archive_unreadable", "is encrypted; pack it without a password")
    packed = _packed(file, info)
    if info.compress_type == zipfile.ZIP_STORED:
        data = packed
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        data = _inflate(packed, info.file_size)
    else:
        reason = f"is compressed with zip method {info.compress_type}; pack it again with deflate, the usual method"
        raise ArchiveError("archive_unreadable", reason)
    if len(data) != info.file_size:
        raise ArchiveError("archive_limits", "has another size than the archive declares; pack it again")
    if zlib.crc32(data) != info.CRC:
        raise ArchiveError("archive_unreadable", "is damaged (wrong checksum); pack and upload it again")
    return data


def _start(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> bytes:
    """The first bytes, by reading little more than them; whatever is wrong with the entry is for ``_read`` to say."""
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return b""
    packed = _packed(file, info, at_most=size + 1_024)  # of a Huffman table, which stands before the first byte
    return packed[:size] if info.compress_type == zipfile.ZIP_STORED else _inflate(packed, size)


def _packed(file: BinaryIO, info: zipfile.ZipInfo, at_most: int | None = None) -> bytes:
    # DEFLATE adds 5 bytes to each 64 KiB block it cannot shrink; anything much longer is not what it declares.
    if info.compress_size > info.file_size + info.file_size // 8 + 65_536:
        raise ArchiveError("archive_limits", "is far larger packed than unpacked; pack it again")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(SIGNATURES[0]):
        raise ArchiveError("archive_unreadable", "has no entry header where the archive says; pack it again")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    file.seek(name_length + extra_length, 1)
    return file.read(info.compress_size if at_most is None else min(at_most, info.compress_size))


def _inflate(packed: bytes, size: int) -> bytes:
    """At most ``size`` + 1 bytes: one more than declared is enough to know that the archive lies."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise ArchiveError("archive_unreadable", "is damaged (cannot be inflated); pack it again") from error
