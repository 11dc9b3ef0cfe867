"""Decode a training image: PNG, JPEG or WebP, one frame, to upright RGB on white."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # the modes that Pillow turns into RGB faithfully
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


class UnreadableImage(ValueError):
    """The message says what is wrong with the file."""


def upright_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone."""
    with _pillow_errors(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _refuse_unsupported(image)
        width, height = image.size
        # Reading it from a PNG without early EXIF data would decode all its pixels, in case some follows them.
        exif = {} if image.format == "PNG" and "exif" not in image.info else image.getexif()
        return (height, width) if exif.get(_ORIENTATION) in _SIDEWAYS else (width, height)


def decode(data: bytes) -> Image.Image:
    """The whole image, upright, RGB, transparency on white."""
    with _pillow_errors(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _refuse_unsupported(image)
        upright = ImageOps.exif_transpose(image)
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")


def _refuse_unsupported(image: Image.Image) -> None:
    if getattr(image, "n_frames", 1) > 1:
        raise UnreadableImage("animated; one frame is allowed")
    if image.mode not in MODES:
        raise UnreadableImage(f"pixel mode {image.mode}; 8-bit images are allowed")


@contextmanager
def _pillow_errors() -> Iterator[None]:
    """Pillow reports a damaged file in several ways, and a pixel bomb below its own limit only as a warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image; allowed are {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImage("too many pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"damaged: {error}") from error
