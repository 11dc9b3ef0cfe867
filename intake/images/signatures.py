"""Telling file formats by their bytes, and whether the file is whole, before any decoder sees it."""

from __future__ import annotations

import re
from typing import Literal

from intake.errors import ImageError

Format = Literal["PNG", "JPEG", "WEBP"]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd")
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"FUJIFILMCCD-RAW", "a raw photo of a camera"),
    (b"II*\0\x10\0\0\0CR", "a raw photo of a camera"),
    (b"IIRO", "a raw photo of a camera"),
    (b"IIRS", "a raw photo of a camera"),
    (b"MMOR", "a raw photo of a camera"),
    (b"IIU\0", "a raw photo of a camera"),
    (b"FOVb", "a raw photo of a camera"),
    (b"II*\0", "a TIFF or a raw photo of a camera"),
    (b"MM\0*", "a TIFF or a raw photo of a camera"),
    (b"II+\0", "a TIFF"),
    (b"MM\0+", "a TIFF"),
    (b"BM", "a BMP"),
    (b"<svg", "an SVG"),
    (b"8BPS", "a Photoshop file"),
    (b"gimp xcf", "a GIMP file"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\1\0", "an icon"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"qoif", "a QOI image"),
    (b"DDS ", "a DDS texture"),
    (b"P3\n", "a PPM image"),
    (b"P5\n", "a PGM image"),
    (b"P6\n", "a PPM image"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"RIFF", "a video or sound file"),
)
# Files that lie where an image should: there is nothing to convert.
_NO_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image; run git lfs pull and pack the folder again"),
    (b"<!doctype html", "a web page, not an image; download the image itself"),
    (b"<html", "a web page, not an image; download the image itself"),
    (b"<?xml", "an SVG or another XML file, not PNG, JPEG or WebP; download or export the image itself"),
    (b"\x93numpy", "a NumPy array, not an image; save it as PNG"),
    (b"par1", "a parquet file, not an image; upload it by itself"),
)
_BRANDS: tuple[tuple[bytes, str], ...] = (
    (b"avif", "an AVIF"),
    (b"avis", "an AVIF"),
    (b"hei", "a HEIC"),
    (b"hev", "a HEIC"),
    (b"mif1", "a HEIC or AVIF"),
    (b"msf1", "a HEIC or AVIF"),
    (b"crx", "a raw photo of a camera"),
)
_PICTURES = (_PNG, _JPEG, b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cJXL ", b"\xff\x0a")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
HEAD = 64  # bytes that tell a picture
_FILL = re.compile(rb"\xff+")  # any number of these starts a JPEG marker
_CONVERT = "convert it to PNG, JPEG or WebP"


def image_format(data: bytes) -> Format:
    """The format of a whole PNG, JPEG or WebP file. Raises ImageError for anything else and for part of a file."""
    if not data:
        raise ImageError("image_truncated", "is empty; upload the whole file")
    name, whole = _recognise(data)
    if not whole:
        raise _cut_off()
    return name


def is_picture(head: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins so is a picture of any kind, also of one that cannot be used.

    SVG, which is text, and BMP, of which two letters say it, need more than their first bytes.
    """
    if head.startswith(_PICTURES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return True
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") == size
    return head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS


def _recognise(data: bytes) -> tuple[Format, bool]:
    if data.startswith(_PNG):
        return "PNG", _png_whole(data)
    if data.startswith(_JPEG):
        return "JPEG", _jpeg_whole(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", len(data) >= 8 + int.from_bytes(data[4:8], "little")
    raise _foreign(data)


def _cut_off() -> ImageError:
    return ImageError("image_truncated", "is cut off before its end; upload the whole file")


def _foreign(data: bytes) -> ImageError:
    if any(signature.startswith(data) for signature in (_PNG, _JPEG, b"RIFF")) or _webp_start(data):
        return _cut_off()
    if data.startswith(_ARCHIVES) or data[257:262] == b"ustar":
        return ImageError("archive_limits", "is an archive inside the archive; unpack it before packing the folder")
    if data[4:8] == b"ftyp":
        name = next((name for brand, name in _BRANDS if data[8:12].startswith(brand)), "a video")
        return ImageError("image_format", f"is {name}; {_CONVERT}")
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"<svg" in start and start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")):
        return ImageError("image_format", f"is an SVG; {_CONVERT}")
    for signature, what in _NO_PICTURES:
        if start.lower().startswith(signature):
            return ImageError("image_unreadable", f"is {what}")
    for signature, name in _OTHERS:
        if start.startswith(signature) or data.startswith(signature):
            return ImageError("image_format", f"is {name}; {_CONVERT}")
    if _is_text(data[:512]):
        return ImageError("image_unreadable", "is a text file, not an image; put the image in its place")
    return ImageError("image_unreadable", f"is not an image; {_CONVERT}")


def _is_text(start: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters; a character may be cut at the end."""
    for end in (len(start), -1, -2, -3):
        try:
            text = start[:end].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return bool(text) and all(character.isprintable() or character.isspace() for character in text)
    return False


def _webp_start(data: bytes) -> bool:
    return data.startswith(b"RIFF") and b"WEBP".startswith(data[8:12])


def _png_whole(data: bytes) -> bool:
    """Whether the chunks lead to a complete IEND; Pillow alone accepts a PNG that ends after its last pixels."""
    offset = len(_PNG)
    while offset + 12 <= len(data):
        kind = data[offset + 4 : offset + 8]
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")  # length, type, content, checksum
        if kind == b"IEND":
            return offset <= len(data)
    return False


def _jpeg_whole(data: bytes) -> bool:
    """Whether an end-of-image marker follows the start of the scan (thumbnails in headers bring their own)."""
    offset = 2
    while fill := _FILL.match(data, offset):
        marker = data[fill.end() : fill.end() + 3]
        if len(marker) < 3:
            return False
        if marker.startswith(b"\xda"):
            return data.endswith(b"\xff\xd9") or data.find(b"\xff\xd9", offset) >= 0
        offset = fill.end() + 1 + max(2, int.from_bytes(marker[1:], "big"))
    # Past the end, the cut is in the headers. Otherwise these are no segments: let the decoder say what is wrong.
    return offset < len(data)
