"""Images of pairs: normalised as intake does when they are sent, and served whole or as thumbnails."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from api.datasets.request import LIMITS
from api.errors.field_errors import FieldError
from api.files.receive import ReceivedFile
from intake.errors import ImageError
from intake.images.image_folder import StoredImage
from intake.images.normalise import normalise
from store.blobs.blobs import Blobs, StoredBlob

# At 50 megapixels, intake's limit, one takes up to 850 MB while it is converted.
DECODED_AT_ONCE = 2
SMALLEST_SIDE, LARGEST_SIDE = 64, 512
THUMBNAIL_TYPE = "image/webp"
_MEDIA_TYPES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))


@dataclass(frozen=True)
class NormalisedImage:
    """A normalised image in ``path``, which may be moved away."""

    path: Path
    blob: StoredBlob
    stored: StoredImage


def read(column: str, file: ReceivedFile) -> NormalisedImage | FieldError:
    """Normalise in place; the same limits and codes as for an image in an archive."""
    try:
        return _normalised(file)
    except ImageError as error:
        return FieldError(column, f"{column}: the image {error.reason}.", error.code)


def _normalised(file: ReceivedFile) -> NormalisedImage:
    if file.blob.bytes > LIMITS.image_bytes:
        reason = f"is larger than {LIMITS.image_bytes:,} bytes; scale it down or save it as JPEG"
        raise ImageError("image_too_large", reason)
    image = normalise(file.path.read_bytes(), LIMITS)
    file.path.write_bytes(image.data)
    sha256 = hashlib.sha256(image.data).hexdigest()
    stored = StoredImage(sha256, image.width, image.height, image.fingerprint, image.profile_ignored)
    return NormalisedImage(file.path, StoredBlob(sha256, len(image.data)), stored)


def measured(blobs: Blobs, sha256: str) -> StoredImage:
    """Of an image that intake has stored."""
    image = normalise(blobs.read(sha256), LIMITS)
    return StoredImage(sha256, image.width, image.height, image.fingerprint, image.profile_ignored)


@dataclass(frozen=True)
class Original:
    media_type: str
    length: int
    body: Iterator[bytes]


def original(blobs: Blobs, sha256: str) -> Original:
    start = b"".join(blobs.stream(sha256, length=4))
    media_type = next(kind for signature, kind in _MEDIA_TYPES if start.startswith(signature))
    return Original(media_type, blobs.size(sha256), blobs.stream(sha256))


def thumbnail(blobs: Blobs, sha256: str, side: int) -> bytes:
    """A WebP whose longer side is ``side`` pixels; a smaller image keeps its size."""
    encoded = io.BytesIO()
    with Image.open(io.BytesIO(blobs.read(sha256)), formats=("PNG", "JPEG", "WEBP")) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at a fraction of its size
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(encoded, "WEBP", quality=85)
    return encoded.getvalue()
