from __future__ import annotations

import io
import random
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from intake.errors import ImageError
from intake.images.normalise import LARGEST_GROWTH, normalise
from intake.limits import Limits
from tests.intake import cmyk_profile
from tests.intake.build import encoded, tar_of, zip_of

pytestmark = pytest.mark.unit

LIMITS = Limits()
NOISE = np.random.default_rng(7).integers(0, 256, (24, 20, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE)


def decoded(data: bytes) -> np.ndarray:
    """Normalised pixels, (height, width, 3)."""
    with Image.open(io.BytesIO(normalise(data, LIMITS).data)) as image:
        assert image.format in ("PNG", "JPEG", "WEBP")
        assert image.mode in ("RGB", "L")
        assert image.info.keys().isdisjoint({"exif", "icc_profile", "comment", "transparency", "xmp", "text"})
        return np.asarray(image.convert("RGB"))


def first(data: bytes) -> tuple[int, ...]:
    return tuple(int(value) for value in decoded(data)[0, 0])


def refusal(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        normalise(data, limits)
    return caught.value.code


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def photo_with_thumbnail() -> bytes:
    """A JPEG whose header holds a whole JPEG, end marker included."""
    thumbnail = encoded(PHOTO.resize((8, 8)), "JPEG")
    plain = encoded(PHOTO, "JPEG")
    return plain[:2] + b"\xff\xed" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + plain[2:]


WHOLE = {
    "PNG": encoded(PHOTO),
    "JPEG": encoded(PHOTO, "JPEG", quality=90),
    "progressive JPEG": encoded(PHOTO, "JPEG", progressive=True),
    "JPEG with thumbnail": photo_with_thumbnail(),
    "WebP": encoded(PHOTO, "WEBP"),
    "lossless WebP": encoded(PHOTO, "WEBP", lossless=True),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_file_is_accepted_and_every_cut_of_it_is_truncated(data: bytes) -> None:
    assert decoded(data).shape == (24, 20, 3)
    cuts = {*range(0, len(data), 10), *range(32), *range(len(data) - 20, len(data))}
    assert {cut: refusal(data[:cut]) for cut in cuts if refusal(data[:cut]) != "image_truncated"} == {}


@pytest.mark.parametrize("format_", ["PNG", "lossless WebP"])
def test_lossless_pixels_are_kept(format_: str) -> None:
    assert (decoded(WHOLE[format_]) == NOISE).all()


def test_the_same_bytes_give_the_same_file_and_only_pixels_remain() -> None:
    text = Image.Exif()
    text[0x010E] = "a description"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(PHOTO, "JPEG", exif=text, icc_profile=profile, comment="made by")
    png = normalise(data, LIMITS).data
    assert png == normalise(data, LIMITS).data
    kinds, offset = [], 8
    while offset < len(png):
        kinds.append(png[offset + 4 : offset + 8])
        offset += 12 + int.from_bytes(png[offset : offset + 4], "big")
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_polyglot_loses_what_follows_the_image(kind: str) -> None:
    both = WHOLE[kind] + zip_of([("evil.txt", b"evil")])
    assert normalise(both, LIMITS).data == normalise(WHOLE[kind], LIMITS).data


def test_a_polyglot_loses_what_stands_between_the_parts_of_an_image() -> None:
    hidden = b"<script>evil()</script>"
    at = WHOLE["PNG"].index(b"IDAT") - 4
    png_with = WHOLE["PNG"][:at] + chunk(b"tEXt", hidden) + WHOLE["PNG"][at:]
    comment = b"\xff\xfe" + struct.pack(">H", len(hidden) + 2) + hidden
    jpeg_with = WHOLE["JPEG"][:2] + comment + WHOLE["JPEG"][2:]
    for data, clean in ((png_with, WHOLE["PNG"]), (jpeg_with, WHOLE["JPEG"])):
        assert normalise(data, LIMITS).data == normalise(clean, LIMITS).data


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 257, 100 * 257, 65535]], dtype=np.uint16)
    assert decoded(encoded(Image.fromarray(grey)))[0, :, 0].tolist() == [0, 1, 100, 255]


def test_sixteen_bit_grey_with_a_transparent_level_lies_on_white() -> None:
    grey = Image.fromarray(np.array([[500, 100 * 257]], dtype=np.uint16))
    assert decoded(encoded(grey, transparency=500))[0, :, 0].tolist() == [255, 100]


def test_sixteen_bit_colour_is_scaled() -> None:
    row = b"\0" + struct.pack(">3H", 65535, 100 * 257, 0)
    assert first(raw_png(1, 1, 16, 2, row)) == (255, 100, 0)


@pytest.mark.parametrize(("ink", "colour"), [((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))])
def test_cmyk_without_a_profile_is_ink_on_white(ink: tuple[int, int, int, int], colour: tuple[int, ...]) -> None:
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
    assert first(data) == pytest.approx(colour, abs=2)


def test_a_colour_profile_is_applied() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # A profile whose red primary is sRGB's green and the other way round.
    swapped = srgb.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")
    data = encoded(Image.new("RGB", (4, 4), (255, 0, 0)), icc_profile=swapped)
    assert first(data) == pytest.approx((0, 255, 0), abs=3)
    assert not normalise(data, LIMITS).profile_ignored


def test_an_srgb_profile_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    difference = np.abs(decoded(encoded(PHOTO, icc_profile=srgb)).astype(int) - NOISE)
    assert difference.max() <= 1


@pytest.mark.parametrize(
    "profile",
    [b"not a profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()],
    ids=["damaged", "Lab"],
)
def test_a_profile_that_cannot_be_applied_is_ignored_and_reported(profile: bytes) -> None:
    normalised = normalise(encoded(Image.new("RGB", (4, 4), (9, 8, 7)), icc_profile=profile), LIMITS)
    assert normalised.profile_ignored
    assert first(normalised.data) == (9, 8, 7)


def test_a_presss_profile_is_applied_to_a_cmyk_image() -> None:
    press = cmyk_profile.profile(cyan=(54, 81, 70))  # CSS red in Lab at D50, which no ink on white is
    data = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", icc_profile=press, quality=95)
    assert not normalise(data, LIMITS).profile_ignored
    assert first(data) == pytest.approx((255, 0, 0), abs=6)


def test_a_profile_of_rgb_on_a_cmyk_image_is_ignored_and_reported() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", icc_profile=srgb, quality=95)
    assert normalise(data, LIMITS).profile_ignored
    assert first(data) == pytest.approx((0, 255, 255), abs=2)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, "ab cd ef"),
        (2, "ba dc fe"),
        (3, "fe dc ba"),
        (4, "ef cd ab"),
        (5, "ace bdf"),
        (6, "eca fdb"),
        (7, "fdb eca"),
        (8, "bdf ace"),
        (9, "ab cd ef"),
    ],
)
def test_exif_orientation_turns_the_image_upright(orientation: int, upright: str) -> None:
    letters = np.array([list(b"ab"), list(b"cd"), list(b"ef")], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decoded(encoded(Image.fromarray(letters), exif=exif))[:, :, 0]
    assert " ".join(bytes(row).decode() for row in pixels) == upright


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded(Image.new("RGBA", (4, 4), (10, 20, 30, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), (204, 204, 204)),
        (encoded(Image.new("LA", (4, 4), (0, 51))), (204, 204, 204)),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)), (255, 255, 255)),
        (encoded(Image.new("L", (4, 4), 7), transparency=7), (255, 255, 255)),
        (encoded(Image.new("1", (4, 4), 0), transparency=0), (255, 255, 255)),
        (encoded(palette_with_transparency(), transparency=1), (255, 255, 255)),
        (encoded(palette_with_transparency()), (255, 0, 0)),
        (encoded(Image.new("1", (4, 4), 0)), (0, 0, 0)),
        (encoded(Image.new("L", (4, 4), 7)), (7, 7, 7)),
        (encoded(Image.new("RGBA", (4, 4), (0, 0, 255, 0)), "WEBP", lossless=True, exact=True), (255, 255, 255)),
    ],
)
def test_transparency_lies_on_white_and_every_mode_becomes_rgb(data: bytes, colour: tuple[int, ...]) -> None:
    assert first(data) == colour


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_more_than_one_frame_is_refused(format_: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert refusal(encoded(frames[0], format_, save_all=True, append_images=frames[1:])) == "image_animated"


def test_a_phone_photo_with_a_second_picture_keeps_the_first() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert first(data) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encoded(PHOTO, "GIF"), "image_format"),
        (encoded(PHOTO, "TIFF"), "image_format"),
        (encoded(PHOTO, "BMP"), "image_format"),
        (encoded(PHOTO, "AVIF"), "image_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format"),
        (b'\n<?xml version="1.0"?><svg/>', "image_format"),
        (b"SIMPLE  =                    T", "image_format"),
        (zip_of([("a", b"a")]), "archive_limits"),
        (tar_of([("a", b"a")], format_=tarfile.USTAR_FORMAT), "archive_limits"),
        (tar_of([("a", b"a")], format_=tarfile.GNU_FORMAT), "archive_limits"),
        (b"just text", "image_unreadable"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "image_unreadable"),
    ],
    ids=[
        "GIF",
        "TIFF",
        "BMP",
        "AVIF",
        "SVG",
        "SVG with declaration",
        "FITS",
        "zip",
        "tar",
        "GNU tar",
        "text",
        "PNG without image",
    ],
)
def test_anything_but_png_jpeg_and_webp_is_refused_by_its_content(data: bytes, code: str) -> None:
    assert refusal(data) == code


def test_a_damaged_png_is_unreadable() -> None:
    data = bytearray(WHOLE["PNG"])
    data[len(data) // 2] ^= 0xFF
    assert refusal(bytes(data)) == "image_unreadable"


def jpeg_of_declared_size(width: int, height: int) -> bytes:
    data = encoded(PHOTO, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_of_the_largest_size() -> bytes:
    data = WHOLE["lossless WebP"]
    at = data.index(b"VP8L") + 9  # behind the size and the signature: 14 bits of width - 1, 14 of height - 1
    sizes = int.from_bytes(data[at : at + 4], "little") | 0xFFFFFFF
    return data[:at] + sizes.to_bytes(4, "little") + data[at + 4 :]


@pytest.mark.parametrize(
    "data",
    [
        raw_png(60_000, 60_000, 8, 2, b"\0"),
        raw_png(9_000, 9_000, 8, 2, b"\0"),
        jpeg_of_declared_size(65_000, 65_000),
        webp_of_the_largest_size(),
    ],
    ids=["PNG", "PNG that Pillow does not even warn of", "JPEG", "WebP"],
)
def test_huge_dimensions_are_refused_from_the_header(data: bytes) -> None:
    assert len(data) < 3000
    assert refusal(data) == "image_too_large"


def test_the_pixel_limit_is_inclusive() -> None:
    assert normalise(WHOLE["PNG"], Limits(image_pixels=480)).width == 20
    assert refusal(WHOLE["PNG"], Limits(image_pixels=479)) == "image_too_large"


@pytest.mark.parametrize("quality", [30, 60])
def test_a_lossy_image_that_has_to_be_turned_does_not_grow_many_times(quality: int) -> None:
    """As seen: 18 times its bytes, as PNG."""
    noise = Image.frombytes("RGB", (320, 200), random.Random(1).randbytes(320 * 200 * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise, "JPEG", quality=quality, exif=exif)
    stored = normalise(data, Limits())
    assert stored.data[:3] == b"\xff\xd8\xff"
    assert (stored.width, stored.height) == (200, 320)
    assert len(stored.data) < LARGEST_GROWTH * len(data)
    with Image.open(io.BytesIO(data)) as source, Image.open(io.BytesIO(stored.data)) as turned:
        expected = np.asarray(source.convert("RGB").transpose(Image.Transpose.ROTATE_270), dtype=float)
        assert np.abs(np.asarray(turned, dtype=float) - expected).mean() < 4
