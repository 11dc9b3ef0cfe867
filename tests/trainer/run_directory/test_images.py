from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainer.run_directory.images import UnreadableImage, decode, upright_size

pytestmark = pytest.mark.unit


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_is_put_on_white() -> None:
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert decode(encoded(image, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied_to_size_and_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (30, 10)), "JPEG", exif=exif)
    assert upright_size(data) == decode(data).size == (10, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"text", "not an image"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "not an image"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), "pixel mode"),
        (
            encoded(Image.new("RGB", (4, 4)), "WEBP", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")]),
            "animated",
        ),
    ],
    ids=["text", "gif", "16-bit", "animated"],
)
def test_what_cannot_be_trained_on_is_refused_from_the_header(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        upright_size(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_refused_on_decoding(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(UnreadableImage):
        decode(data[: len(data) // 2])


def test_a_pixel_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="too many pixels"):
        upright_size(encoded(Image.new("RGB", (12, 12)), "PNG"))
