"""One image of any accepted kind becomes one kind: 8-bit sRGB on white, upright, without metadata.

What is that already keeps its compressed bytes and loses the rest of its container; anything else becomes a PNG, or a
JPEG of high quality where the PNG of a lossy image would take many times its bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from intake.errors import ImageError
from intake.images.container import bare, has_profile, repaired
from intake.images.fingerprint import fingerprint
from intake.images.signatures import Format, image_format
from intake.limits import Limits

# What Pillow's three decoders let through for malformed files.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
# At 89 megapixels Pillow warns and at 179 it raises, both from the header; limits.image_pixels is lower.
_PIXEL_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Of a PNG's profile or text, unpacked; a printer's profile takes 3 MB, and by itself Pillow refuses the picture at 1.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20

# Without subsampling; a second compression at 95 adds little to the losses of the first.
LOSSY_QUALITY = 95
LARGEST_GROWTH = 6
_ORIENTATION = 0x0112  # EXIF tag
_AS_IT_IS = (0, 1)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The image mode that a profile's transform starts from, by the profile's colour space.
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Normalised:
    """``data`` is the file, a PNG, JPEG or WebP; the same input always gives the same. Width and height are pixels.

    ``profile_ignored`` is true when a colour profile was there but could not be applied.
    """

    data: bytes
    width: int
    height: int
    profile_ignored: bool
    fingerprint: bytes


def normalise(data: bytes, limits: Limits) -> Normalised:
    """Decode an untrusted PNG, JPEG or WebP file in full, and keep of it the picture alone. Raises ImageError."""
    format_ = image_format(data)
    try:
        return _decoded(data, format_, limits)
    except DECODER_ERRORS as error:
        for other in repaired(data, format_):
            with suppress(*DECODER_ERRORS):
                found = _decoded(other, format_, limits)
                return replace(found, profile_ignored=found.profile_ignored or has_profile(data, format_))
        raise _undecodable(error) from error


def _decoded(data: bytes, format_: Format, limits: Limits) -> Normalised:
    """Raises ImageError, or one of DECODER_ERRORS."""
    try:
        with _open(data, format_) as image:
            _check_header(image, limits)
            image.load()
            orientation = _orientation(image)
            kept = bare(data, format_, image) if orientation in _AS_IT_IS else None
            rgb, profile_ignored = (image, False) if kept else _to_srgb(image)
            upright = _upright(rgb, orientation)
    except _PIXEL_BOMB as error:
        raise _too_large(limits) from error
    stored = kept or _encode(upright, lossy_bytes=len(data) if _is_lossy(data, format_) else None)
    return Normalised(stored, upright.width, upright.height, profile_ignored, fingerprint(upright))


def _open(data: bytes, format_: Format) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=[format_])


def _check_header(image: Image.Image, limits: Limits) -> None:
    if image.width * image.height > limits.image_pixels:
        raise _too_large(limits)
    # A phone's JPEG may carry further pictures (MPO: depth, gain map); the first one is the photograph.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError("image_animated", "has more than one frame; save the frame you want as one image")


def _too_large(limits: Limits) -> ImageError:
    return ImageError("image_too_large", f"has more than {limits.image_pixels:,} pixels; scale it down")


def _undecodable(error: Exception) -> ImageError:
    if "truncated" in str(error).lower():
        return ImageError("image_truncated", "is cut off before its end; upload the whole file")
    return ImageError("image_unreadable", "is damaged and cannot be decoded; save it again from the original")


def _to_srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as RGB over white, and whether its colour profile had to be ignored."""
    alpha = _alpha(image)
    rgb, profile_ignored = _apply_profile(_opaque(image), image.info.get("icc_profile"))
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return rgb, profile_ignored


def _alpha(image: Image.Image) -> Image.Image | None:
    """Opacity as an 8-bit image, or None for an image that is opaque throughout."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I") and transparent is not None:
        return Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or transparent is not None:
        return image.convert("RGBA").getchannel("A")
    return None


def _opaque(image: Image.Image) -> Image.Image:
    """The colours alone, in the mode that a profile speaks of: L, RGB or CMYK."""
    if image.mode.startswith("I"):
        return _eight_bit(image)
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled from 0..65535 to 0..255. Pillow's own conversion clips at 255 instead."""
    return Image.fromarray(np.rint(np.asarray(image) / 257.0).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """Into sRGB by the embedded ICC profile; without one, RGB and grey are sRGB and CMYK is plain ink coverage."""
    if not profile:
        return image.convert("RGB"), False
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES[source.profile.xcolor_space.strip()]
        if "CMYK" in (mode, image.mode) and mode != image.mode:
            return image.convert("RGB"), True
        converted = ImageCms.profileToProfile(
            image.convert(mode), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, KeyError, *DECODER_ERRORS):
        return image.convert("RGB"), True
    return (image.convert("RGB"), True) if converted is None else (converted, False)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; upright where the EXIF block is unreadable, which harms no pixel."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DECODER_ERRORS:
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _encode(image: Image.Image, *, lossy_bytes: int | None) -> bytes:
    """As PNG; or as JPEG what came as ``lossy_bytes`` of a compression with losses, if its PNG takes many times that:
    it would be the noise of that compression that is stored without loss."""
    image.info = {}  # Pillow would write the profile and the transparent colour of the source again
    encoded = io.BytesIO()
    # Level 1: these files feed one decode each; level 6 took six times as long for 14% less disk.
    image.save(encoded, "PNG", compress_level=1)
    if lossy_bytes is not None and encoded.tell() > LARGEST_GROWTH * lossy_bytes:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=LOSSY_QUALITY, subsampling=0)
    return encoded.getvalue()


def _is_lossy(data: bytes, format_: Format) -> bool:
    return format_ == "JPEG" or (format_ == "WEBP" and b"VP8L" not in data[:4096])
