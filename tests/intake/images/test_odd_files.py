"""Pictures that every viewer opens are read, whatever else is in the file; what is no picture is called what it is."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from intake.errors import ImageError
from intake.images.normalise import normalise
from intake.limits import Limits
from tests.intake.build import encoded, jsonl, only, pixel, png, prepare, zip_of

pytestmark = pytest.mark.unit

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
PNG = encoded(PICTURE)
JPEG = encoded(PICTURE, "JPEG", quality=90)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG = b"x" * 2_000_000


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    body = kind + content
    return (
        struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body) if checksum is None else checksum)
    )


def png_with(*chunks: bytes, behind: bool = False) -> bytes:
    """The chunks behind the header, or behind the pixels."""
    at = len(PNG) - 12 if behind else 33
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def profile(content: bytes) -> bytes:
    return chunk(b"iCCP", b"profile\0\0" + content)


def frames(count: int, sequence: int = 0) -> bytes:
    control = struct.pack(">IIIIIHHBB", sequence, 32, 24, 0, 0, 1, 10, 0, 0)
    return chunk(b"acTL", struct.pack(">II", count, 0)) + chunk(b"fcTL", control)


ODD_PNGS = {
    "a profile of megabytes": png_with(profile(zlib.compress(SRGB + bytes(3_000_000)))),
    "a damaged profile": png_with(profile(b"\x78\x9cno zlib")),
    "an empty profile": png_with(chunk(b"iCCP", b"")),
    "a profile compressed by another method": png_with(chunk(b"iCCP", b"profile\0\5" + zlib.compress(SRGB))),
    "a profile of tens of megabytes": png_with(profile(zlib.compress(bytes(40_000_000)))),
    "long text": png_with(chunk(b"tEXt", b"parameters\0" + LONG)),
    "long compressed text": png_with(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LONG * 20))),
    "long international text": png_with(chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG * 20))),
    "text behind the pixels": png_with(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LONG * 20)), behind=True),
    "damaged text": png_with(chunk(b"zTXt", b"a\0\0no zlib")),
    "text of another method": png_with(chunk(b"zTXt", b"a\0\7text")),
    "text cut short": png_with(chunk(b"iTXt", b"a")),
    "more text than Pillow reads": png_with(*[chunk(b"tEXt", b"key\0" + LONG)] * 35),
    "thousands of chunks": png_with(chunk(b"tEXt", b"k\0v") * 5000),
    "a wrong checksum of text": png_with(chunk(b"tEXt", b"a\0b", checksum=1)),
    "a wrong checksum behind the pixels": png_with(chunk(b"tEXt", b"a\0b", checksum=1), behind=True),
    "private chunks": png_with(chunk(b"caBX", b"jumb" * 100), chunk(b"prVt", b"")),
    "bytes behind the end": PNG + b"PK\x03\x04 and more",
    "an animation of one frame": png_with(frames(1)),
    "an animation of one frame, counted wrong": png_with(frames(1, sequence=7)),
    "an animation of none": png_with(chunk(b"acTL", struct.pack(">II", 0, 0))),
    "a damaged animation": png_with(chunk(b"acTL", b"")),
    "a damaged frame": png_with(chunk(b"acTL", struct.pack(">II", 1, 0)), chunk(b"fcTL", b"x")),
} | {
    f"an empty {kind.decode()}": png_with(chunk(kind, b""))
    for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"eXIf", b"bKGD", b"sBIT", b"cICP", b"hIST", b"sPLT")
}


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


ODD_JPEGS = {
    "garbage for EXIF": jpeg_with(segment(0xE1, b"Exif\0\0garbage")),
    "an empty EXIF block": jpeg_with(segment(0xE1, b"Exif\0\0")),
    "EXIF that points outside": jpeg_with(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "EXIF that points to itself": jpeg_with(
        segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0")
    ),
    "a damaged profile": jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\1garbage")),
    "an empty profile": jpeg_with(segment(0xE2, b"ICC_PROFILE\0")),
    "a profile without its parts": jpeg_with(segment(0xE2, b"ICC_PROFILE\0\5\1xx")),
    "damaged further pictures": jpeg_with(segment(0xE2, b"MPF\0garbage")),
    "further pictures that are missing": jpeg_with(
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\x01\0\0\0\x02\0\0\0\0\0\0\0")
    ),
    "a short Adobe marker": jpeg_with(segment(0xEE, b"Adobe")),
    "damaged Photoshop data": jpeg_with(segment(0xED, b"Photoshop 3.0\0garbage")),
    "Photoshop data cut short": jpeg_with(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02\0\0")),
    "an odd comment": jpeg_with(segment(0xFE, b"\xff" * 100)),
    "a short JFIF marker": jpeg_with(segment(0xE0, b"JFIF")),
    "an empty segment": jpeg_with(segment(0xE0, b"")),
    "much XMP": jpeg_with(*[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(60_000))] * 20),
    "bytes behind the end": JPEG + b"and more",
}


def read(data: bytes, folder: Path) -> Image.Image:
    path = folder / "image"
    path.write_bytes(normalise(data, Limits()).data)
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is odd
@pytest.mark.parametrize("data", ODD_PNGS.values(), ids=ODD_PNGS)
def test_an_odd_png_gives_its_pixels(data: bytes, tmp_path: Path) -> None:
    assert read(data, tmp_path).tobytes() == PICTURE.tobytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", ODD_JPEGS.values(), ids=ODD_JPEGS)
def test_an_odd_jpeg_gives_its_pixels(data: bytes, tmp_path: Path) -> None:
    assert read(data, tmp_path).tobytes() == read(JPEG, tmp_path).tobytes()


def test_what_changes_the_picture_survives_a_repair(tmp_path: Path) -> None:
    bad = chunk(b"tEXt", b"a\0b", checksum=1)
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    assert read(png_with(bad, turned), tmp_path).size == (24, 32)
    palette = encoded(Image.new("P", (4, 4), 0), transparency=0)
    assert pixel_of(palette[:33] + bad + palette[33:], tmp_path) == (255, 255, 255)
    cmyk = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    broken = cmyk[:2] + segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02\0\0") + cmyk[2:]
    assert pixel_of(broken, tmp_path) == pixel_of(cmyk, tmp_path)


def pixel_of(data: bytes, folder: Path) -> tuple[int, ...]:
    value = read(data, folder).getpixel((0, 0))
    assert isinstance(value, tuple)
    return value


def test_a_large_profile_is_applied_and_one_that_cannot_be_is_reported() -> None:
    assert not normalise(ODD_PNGS["a profile of megabytes"], Limits()).profile_ignored
    assert normalise(ODD_PNGS["a profile of tens of megabytes"], Limits()).profile_ignored


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_damage_to_the_picture_itself_is_damage(at: float) -> None:
    data = bytearray(png_with(chunk(b"tEXt", b"a\0b", checksum=1)))
    data[45 + int(at * (len(data) - 60))] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        normalise(bytes(data), Limits())
    with pytest.raises(ImageError, match="more than one frame"):
        normalise(png_with(frames(2)), Limits())


NO_PICTURES = {
    "a web page": b"<!DOCTYPE html><html><body>403</body></html>",
    "a web page, not": b"\n<html><head>",
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "an SVG": b'<?xml version="1.0"?><!-- drawn --><svg xmlns="http://www.w3.org/2000/svg"/>',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a text file": "ein Füchslein\n".encode() * 60,
    "a PDF": b"%PDF-1.7\n\xe2\xe3",
    "a HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "an AVIF": b"\0\0\0\x1cftypavif\0\0\0\0",
    "a video": b"\0\0\0\x20ftypisom\0\0\2\0",
    "a raw photo": b"\0\0\0\x18ftypcrx \0\0\0\1",
    "a raw photo of a camera": b"FUJIFILMCCD-RAW 0201",
    "TIFF or a raw photo": b"II*\0\x08\0\0\0\x0b\0",
    "raw photo of a camera;": b"II*\0\x10\0\0\0CR\2\0",
    "a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a Photoshop file": b"8BPS\0\1",
    "an icon": b"\0\0\1\0\1\0",
    "a video;": b"\x1a\x45\xdf\xa3\x01\0",
    "a video or sound file": b"RIFF\x24\0\0\0WAVEfmt ",
    "a NumPy array": b"\x93NUMPY\1\0",
    "a parquet file": b"PAR1\x15\0\x15",
    "a GIMP file": b"gimp xcf v011\0",
}


@pytest.mark.parametrize(("name", "data"), NO_PICTURES.items(), ids=NO_PICTURES)
def test_what_is_no_picture_is_called_what_it_is(name: str, data: bytes, tmp_path: Path) -> None:
    row = jsonl({"prompt": "p", "chosen": "a.png", "rejected": "b.png"})
    finding = only(prepare(zip_of([("metadata.jsonl", row), ("a.png", data), ("b.png", png())]), tmp_path).findings)
    assert f"a.png is {name if name.startswith(('a ', 'an ')) else ''}" in finding.message
    assert name in finding.message
    assert "damaged" not in finding.message


def test_the_pictures_of_these_tests_are_pictures(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(normalise(PNG, Limits()).data)
    assert pixel(path) == PICTURE.getpixel((0, 0))
