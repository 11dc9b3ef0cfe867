"""Files that keep their compressed bytes: which do, what they lose, and that no pixel changes."""

from __future__ import annotations

import io
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from intake.images import normalise as images_module
from intake.images.normalise import normalise
from intake.limits import Limits
from tests.intake.build import encoded
from trainer.run_directory.images import decode

pytestmark = pytest.mark.unit
CHANCE = np.random.default_rng(3)
PHOTO = Image.fromarray(CHANCE.integers(0, 256, (40, 56, 3), dtype=np.uint8)).resize((112, 80))
ORDINARY: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg 4:4:4": ("JPEG", {"subsampling": 0}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "jpeg with restarts": ("JPEG", {"restart_marker_blocks": 2}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 80}),
    "lossless webp": ("WEBP", {"lossless": True}),
}


def anew(data: bytes) -> bytes:
    """As if nothing could be kept."""
    with patch.object(images_module, "bare", lambda *_: None):
        return normalise(data, Limits()).data


def test_the_bytes_of_a_plain_jpeg_stay_as_they_are() -> None:
    plain = encoded(PHOTO, "JPEG", quality=90)
    assert normalise(plain, Limits()).data == plain


def test_a_comment_between_two_scans_goes() -> None:
    data = encoded(PHOTO, "JPEG", progressive=True)
    first_scan = data.index(b"\xff\xda")
    between = data.index(b"\xff\xc4", first_scan)  # the tables of the second scan
    comment = b"\xff\xfe\x00\x08SECRET"
    kept = normalise(data[:between] + comment + data[between:], Limits()).data
    assert b"SECRET" not in kept
    assert kept == normalise(data, Limits()).data


def with_component_ids(jpeg: bytes, old: bytes, new: bytes) -> bytes:
    """The three components renamed in the frame's and in the scan's header; nothing else changes."""
    frame = jpeg.index(b"\xff\xc0") + 10
    scan = jpeg.index(b"\xff\xda") + 5
    named = bytearray(jpeg)
    for number in range(3):
        for at in (frame + 3 * number, scan + 2 * number):
            assert named[at] == old[number]
            named[at] = new[number]
    return bytes(named)


@pytest.mark.parametrize(
    ("colour_model", "segment", "options"),
    [("RGB, by Adobe's segment", b"Adobe", {"keep_rgb": True}), ("YCbCr, by JFIF's", b"JFIF", {})],
)
def test_the_segment_that_says_how_a_jpegs_channels_make_colours_is_kept(
    colour_model: str, segment: bytes, options: dict[str, Any]
) -> None:
    """With component ids that suggest the other model, which a decoder falls back to where no segment says it."""
    plain = encoded(PHOTO, "JPEG", quality=95, subsampling=0, **options)
    ids = (b"RGB", b"\1\2\3") if "keep_rgb" in options else (b"\1\2\3", b"RGB")
    data = with_component_ids(plain, *ids)
    kept = normalise(data, Limits()).data
    assert segment in kept
    assert decode(kept).tobytes() == decode(plain).tobytes()


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_ordinary_file_is_kept_pixel_by_pixel_without_what_is_not_its_picture(name: str, mode: str) -> None:
    format_, options = ORDINARY[name]
    exif = Image.Exif()
    exif[0x010E] = "SECRET place"
    more: dict[str, Any] = {"exif": exif.tobytes()}
    if format_ == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", "SECRET prompt")
        more["pnginfo"] = text
    data = encoded(PHOTO.convert(mode), format_, **options, **more) + b"SECRET tail"
    kept = normalise(data, Limits()).data
    assert b"SECRET" in data
    assert b"SECRET" not in kept
    with Image.open(io.BytesIO(kept)) as image:
        assert image.format == format_
    assert len(kept) < len(data)
    assert decode(kept).tobytes() == decode(anew(data)).tobytes()
    assert normalise(kept, Limits()).data == kept


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def seen_through(image: Image.Image) -> Image.Image:
    clear = image.convert("RGBA")
    clear.putalpha(100)
    return clear


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PHOTO, "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        encoded(PHOTO, "JPEG", icc_profile=profile()),
        encoded(PHOTO.convert("CMYK"), "JPEG"),
        turned(),
        encoded(PHOTO.convert("P")),
        encoded(seen_through(PHOTO)),
        encoded(PHOTO, transparency=(1, 2, 3)),
        encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)),
        encoded(seen_through(PHOTO), "WEBP"),
    ],
    ids=["profile", "CMYK", "orientation", "palette", "alpha", "transparent colour", "16 bits", "WebP with alpha"],
)
def test_what_is_no_plain_picture_is_encoded_anew(data: bytes) -> None:
    assert normalise(data, Limits()).data == anew(data)
    assert normalise(data, Limits()).data.startswith(b"\x89PNG")


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(sorted(ORDINARY)),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_no_pixel_of_a_kept_file_changes(width: int, height: int, seed: int, name: str, mode: str) -> None:
    format_, options = ORDINARY[name]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels).convert(mode), format_, **options)
    assert decode(normalise(data, Limits()).data).tobytes() == decode(anew(data)).tobytes()
