"""Listing and reading tar archives that nobody vouches for: ustar, GNU long names, pax paths and sizes.

The standard library's ``tarfile`` is not used: in Pythons that we support it loops without end on a negative size
(CVE-2025-8194), reads extension headers of any length into memory, recurses once per extension header, and lets a dozen
kinds of exception through.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from intake.archives.entries import Entry, Kind, check_count, check_total
from intake.errors import ArchiveError
from intake.limits import Limits

_BLOCK = 512
_EXTENSION_BYTES = 2**16  # room for a path of any length that is accepted
_EXTENSION_RECORDS = 256
_KINDS: Mapping[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # "contiguous", which every system reads as a plain file
    b"1": "hard link",
    b"2": "symbolic link",
    b"5": "folder",
    b"D": "folder",  # GNU tar's of an incremental archive; what follows is a list of names
    b"S": "sparse file",
}
_SPARSE_MORE = 482, 504  # bytes of an old GNU sparse header, and of its extensions, that say whether one more follows
_NO_ENTRIES = b"VM"  # GNU tar's volume label, and the rest of a file of the volume before
_BODILESS = b"123456"  # links, devices, folders, pipes: a size they give counts no bytes that follow


@dataclass(frozen=True)
class _Header:
    name: str
    type: bytes
    size: int
    link: str
    extensions: int  # blocks of further sparse headers behind this one


def is_tar(start: bytes) -> bool:
    """Whether the first 512 bytes are a tar header (its checksum is right), also one of before POSIX."""
    return len(start) == _BLOCK and any(start) and _checksum_right(start)


def list_tar(file: BinaryIO, length: int, limits: Limits) -> list[Entry]:
    """Entries in order. ``file`` must stay open while entries are read. Raises ArchiveError."""
    check_total(length, length, limits)
    entries: list[Entry] = []
    in_unicode: set[str] = set()  # names from pax headers
    files: dict[str, Entry] = {}
    extended: dict[str, str] = {}
    offset = headers = 0
    while (header := _header_at(file, offset)) is not None:
        headers += 1
        check_count(headers // 4, limits)  # an entry has up to three extension headers of its own
        data_at = offset + _BLOCK * (1 + header.extensions)
        if header.type in b"xXgLK":
            extended |= _extension(header, _bytes_at(file, data_at, _extension_size(header)))
            offset = data_at + _padded(header.size)
            continue
        name, size = extended.get("path", header.name), _size(extended, header)
        kind = "sparse file" if "sparse" in extended else _kind(header, name)
        body = 0 if header.type in _BODILESS else size
        if data_at + body > length:
            raise ArchiveError("archive_unreadable", "is cut off in the middle; upload it again")
        read, start = functools.partial(_bytes_at, file, data_at, body), functools.partial(_start, file, data_at, body)
        entry = Entry(name, kind, body, read, start)
        if kind == "hard link" and (linked := files.get(extended.get("linkpath", header.link))) is not None:
            entry = Entry(
                name, "file", linked.size, linked.read, linked.start
            )  # one file under two names, as cp -l makes them
        if header.type not in _NO_ENTRIES:
            entries.append(entry)
        if entry.kind == "file":
            files[name] = entry
        if "pax" in extended:
            in_unicode.add(name)
        check_count(len(entries), limits)
        offset, extended = data_at + _padded(body), {}
    check_total(sum(entry.size for entry in entries), length, limits)
    raw = {entry.name for entry in entries} - in_unicode
    if all(_is_utf8(name) for name in raw):
        return entries
    # The program did not write UTF-8, and what looks like it in some names is chance.
    return [replace(entry, name=_bytewise(entry.name)) if entry.name in raw else entry for entry in entries]


def _header_at(file: BinaryIO, offset: int) -> _Header | None:
    """The header there, or None at the end: a block of zeros, or the end of the file between entries."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if not any(block):
        return None
    if len(block) < _BLOCK or not _checksum_right(block):
        raise ArchiveError("archive_unreadable", f"is a damaged tar file (at byte {offset:,}); pack it again")
    name = _until_nul(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _until_nul(block[345:500])):
        name = prefix + b"/" + name
    kind = block[156:157]
    extensions = _sparse_extensions(file, block) if kind == b"S" else 0
    return _Header(_text(name), kind, _number(block[124:136]), _text(_until_nul(block[157:257])), extensions)


def _sparse_extensions(file: BinaryIO, block: bytes) -> int:
    """How many blocks continue the map of a sparse file; ``file`` stands behind the first."""
    count, more = 0, _SPARSE_MORE[0]
    while block[more : more + 1] not in (b"\0", b""):
        block, more = file.read(_BLOCK), _SPARSE_MORE[1]
        count += 1
    return count


def _checksum_right(block: bytes) -> bool:
    """The header's bytes summed with the checksum field as spaces; the oldest tars summed signed bytes."""
    stated = block[148:156].strip(b" \0")
    rest = block[:148] + b" " * 8 + block[156:]
    sums = {sum(rest), sum(rest) - 256 * sum(byte > 127 for byte in rest)}
    return stated.isdigit() and set(stated) <= set(b"01234567") and int(stated, 8) in sums


def _number(field: bytes) -> int:
    """Octal text, or base 256 for sizes from 8 GiB on (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not set(digits) <= set(b"01234567"):
        raise ArchiveError("archive_unreadable", "is a damaged tar file (an entry without a size); pack it again")
    return int(digits or b"0", 8)


def _extension_size(header: _Header) -> int:
    if header.size > _EXTENSION_BYTES:
        raise ArchiveError("archive_limits", "has an oversized extension header; pack it again")
    return header.size


def _extension(header: _Header, data: bytes) -> dict[str, str]:
    """What matters of the header: the path, size and link of the entry that follows, and whether it is sparse.

    Global headers (``g``) carry comments and times, as git archive writes them.
    """
    if header.type in b"LK":
        return {"path" if header.type == b"L" else "linkpath": _text(_until_nul(data))}
    records = _pax_records(data) if header.type in b"xX" else {}
    found = {key: value for key, value in records.items() if key in ("path", "size", "linkpath")}
    if "path" in found:
        found["pax"] = ""
    if any(key.startswith("GNU.sparse.") for key in records):
        found |= {"sparse": "", "path": records.get("GNU.sparse.name", found.get("path", header.name))}
    return found


def _pax_records(data: bytes) -> dict[str, str]:
    """Records of the form ``"<length> <key>=<value>\\n"``, the length counting the whole record."""
    records: dict[str, str] = {}
    content, at = data.rstrip(b"\0"), 0
    for _ in range(_EXTENSION_RECORDS):
        if at == len(content):
            return records
        digits, space, _ = content[at : at + 20].partition(b" ")
        end = at + (int(digits) if digits.isdigit() else 0)
        record = content[at + len(digits) + 1 : end]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not (space and equals and record.endswith(b"\n")) or end <= at:
            raise ArchiveError("archive_unreadable", "is a damaged tar file (a pax header); pack it again")
        records[_text(key)] = _text(value)
        at = end
    raise ArchiveError("archive_limits", "has an oversized extension header; pack it again")


def _size(extended: Mapping[str, str], header: _Header) -> int:
    size = extended.get("size", "")
    return int(size) if size.isascii() and size.isdigit() and len(size) < 20 else header.size


def _kind(header: _Header, name: str) -> Kind:
    kind = _KINDS.get(header.type, "device or special file")
    return "folder" if kind == "file" and name.endswith("/") else kind


def _bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ArchiveError("archive_unreadable", "is cut off in the middle; upload it again")
    return data


def _start(file: BinaryIO, offset: int, body: int, size: int) -> bytes:
    return _bytes_at(file, offset, min(body, size))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(data: bytes) -> str:
    """UTF-8; other bytes become unpaired surrogates, which the check of names refuses."""
    return data.decode("utf-8", "surrogateescape")


def _is_utf8(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _bytewise(name: str) -> str:
    """Every byte above ASCII as an unpaired surrogate."""
    return name.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
