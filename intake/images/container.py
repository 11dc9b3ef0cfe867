"""An image file without anything but its picture: the parts that decoders need, in their order, byte for byte.

Metadata, colour profiles, thumbnails, comments and whatever follows the image are left out; the pixels cannot change,
because no compressed byte does. This is for files that are what training wants already; others are encoded again.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from intake.images.signatures import Format

_PNG_START, _PNG_PARTS = b"\x89PNG\r\n\x1a\n", (b"IHDR", b"IDAT", b"IEND")
_PNG_DEPTH, _PNG_COLOUR = 24, 25  # where IHDR has the bits of a sample and the colour type
_GREY, _TRUE_COLOUR = 0, 2
_START_OF_SCAN, _END, _JFIF, _ADOBE = 0xDA, 0xD9, 0xE0, 0xEE
_ADOBE_BYTES = 12  # a shorter one says nothing
_APPLICATION, _COMMENT, _TEMPORARY = range(0xE0, 0xF0), 0xFE, 0x01
# Behind a start of scan: a marker, not a byte 0xFF of the picture (followed by 0) nor a restart (D0 to D7).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


def bare(data: bytes, format_: Format, image: Image.Image) -> bytes | None:
    """The file with its image alone; None where it has to be encoded again.

    ``image`` is the decoded file. It may be kept if it is 8-bit RGB or grey, opaque, upright and without a colour
    profile, and its container is an ordinary one.
    """
    if image.mode not in ("RGB", "L") or "transparency" in image.info or image.info.get("icc_profile"):
        return None
    if format_ == "PNG":
        return _png(data)
    if format_ == "JPEG":
        return _jpeg(data) if image.format == "JPEG" else None
    return _webp(data)


def _png(data: bytes) -> bytes | None:
    """8 bits a sample, grey or true colour; Pillow turns 16-bit true colour into 8 bits by itself."""
    if data[_PNG_DEPTH] != 8 or data[_PNG_COLOUR] not in (_GREY, _TRUE_COLOUR):
        return None
    parts, offset = [_PNG_START], len(_PNG_START)
    while offset < len(data):
        length, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if kind in _PNG_PARTS:
            parts.append(data[offset:end])
        if kind == b"IEND":
            return b"".join(parts)
        offset = end
    return None


def _jpeg(data: bytes) -> bytes | None:
    """Of the application segments JFIF's and Adobe's stay: they say how the channels make colours."""
    parts: list[bytes | memoryview] = [data[:2]]
    offset = 2
    while match := _MARKER.match(data, offset):  # anything between segments is none of a sound file's
        marker, start = match.group(1)[0], match.end()
        if marker == _END:
            parts.append(b"\xff\xd9")
            return data if sum(map(len, parts)) == len(data) else b"".join(parts)
        if marker == _TEMPORARY or start + 2 > len(data):
            return None
        end = start + int.from_bytes(data[start : start + 2], "big")
        kept = marker not in _APPLICATION and marker != _COMMENT
        if kept or _says_how_colours_are_made(marker, data[start + 2 : end]):
            parts.append(b"\xff" + bytes([marker]) + data[start:end])
        offset = end
        if marker == _START_OF_SCAN:
            following = _end_of_scan(data, offset)
            if following is None:
                return None
            parts.append(memoryview(data)[offset:following])
            offset = following
    return None


def _end_of_scan(data: bytes, offset: int) -> int | None:
    """Where the next marker is. Most files have one scan up to the end and no restarts, which counting tells fast."""
    end = data.rfind(b"\xff\xd9", offset)
    if end >= 0:
        scan = np.frombuffer(data, np.uint8, count=end + 1 - offset, offset=offset)  # up to the 0xFF of the end marker
        if not ((scan[:-1] == 0xFF) & (scan[1:] != 0)).any():
            return end
    following = _MARKER.search(data, offset)
    return following.start() if following else None


def _says_how_colours_are_made(marker: int, content: bytes) -> bool:
    if marker == _ADOBE:
        return content.startswith(b"Adobe") and len(content) >= _ADOBE_BYTES
    return marker == _JFIF and content.startswith(b"JFIF\0")


def _webp(data: bytes) -> bytes | None:
    offset, end = 12, 8 + int.from_bytes(data[4:8], "little")
    while offset + 8 <= end:
        kind, length = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        following = offset + 8 + length + length % 2
        if kind in (b"VP8 ", b"VP8L"):
            picture = data[offset : offset + 8 + length] + b"\0" * (length % 2)
            return b"RIFF" + struct.pack("<I", 4 + len(picture)) + b"WEBP" + picture
        offset = following
    return None


_ANCILLARY_KEPT = b"tRNS", b"eXIf"  # they change the picture: what is transparent, which side is up
_EXIF = 0xE1


def repaired(data: bytes, format_: Format) -> Iterator[bytes]:
    """The file without what decoders stumble over though viewers do not: texts, profiles, checksums of what is not the
    picture. First with the EXIF block, which says which side is up, then without it."""
    repair = {"PNG": _repaired_png, "JPEG": _repaired_jpeg}.get(format_)
    if repair is not None:
        for with_exif in (True, False):
            if (found := repair(data, with_exif=with_exif)) is not None:
                yield found


def has_profile(data: bytes, format_: Format) -> bool:
    return (b"iCCP" if format_ == "PNG" else b"ICC_PROFILE\0") in data


def _repaired_png(data: bytes, *, with_exif: bool) -> bytes | None:
    kept = _ANCILLARY_KEPT if with_exif else _ANCILLARY_KEPT[:1]
    parts, offset = [_PNG_START], len(_PNG_START)
    while offset < len(data):
        length, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if kind[:1].isupper():  # critical
            parts.append(data[offset:end])
        elif kind in kept:
            body = data[offset + 4 : end - 4]
            parts.append(data[offset : end - 4] + zlib.crc32(body).to_bytes(4, "big"))
        if kind == b"IEND":
            return b"".join(parts)
        offset = end
    return None


def _repaired_jpeg(data: bytes, *, with_exif: bool) -> bytes | None:
    parts, offset = [data[:2]], 2
    while match := _MARKER.match(data, offset):
        marker, start = match.group(1)[0], match.end()
        if start + 2 > len(data):
            return None
        end = start + int.from_bytes(data[start : start + 2], "big")
        exif = with_exif and marker == _EXIF and data[start + 2 : end].startswith(b"Exif\0")
        kept = marker not in _APPLICATION and marker != _COMMENT
        if kept or exif or _says_how_colours_are_made(marker, data[start + 2 : end]):
            parts.append(b"\xff" + bytes([marker]) + data[start:end])
        if marker == _START_OF_SCAN:
            return b"".join([*parts, data[end:]])
        offset = end
    return None
