"""Images inside the cells of a text table: data URIs, base64, and the structs of Hugging Face's ``Image`` in JSON."""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Mapping
from dataclasses import replace

from intake.archives.entries import Entry
from intake.findings import Finding
from intake.formats.judgement import Judgement, row_finding
from intake.limits import Limits

IMAGES = ("chosen", "rejected")
_URI = "data:image/"
_ENCODED = ("iVBORw0KGgo", "/9j/", "UklGR")  # how PNG, JPEG and WebP begin in base64
_PATH = 100  # characters of a path; an image has more
_PYTHON = ("{'bytes': b", "b'\\x", 'b"\\x')  # a struct or bytes as Python prints them


def held_inline(judgement: Judgement, file: str, limits: Limits) -> Judgement | Finding:
    """The judgement with the images that its cells hold; or why one cannot be taken."""
    if all(_is_short(judgement.fields.get(side)) for side in IMAGES):
        return judgement
    fields, held = dict(judgement.fields), dict(judgement.held)
    for side in IMAGES:
        own = judgement.columns.get(side, side)
        fields[side], encoded = _path_or_bytes(fields.get(side))
        if str(fields[side]).startswith(_PYTHON):
            reason = (
                f"column {own!r} holds bytes as Python prints them; write the dataset as parquet (to_parquet), or the "
                "images as files"
            )
            return row_finding(file, judgement.number, reason)
        if encoded is None:
            continue
        if len(encoded) * 3 // 4 > limits.image_bytes:
            reason = f"column {own!r} holds an image of more than {limits.image_bytes:,} bytes; store it as a file"
            return row_finding(file, judgement.number, reason, "image_too_large")
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            reason = f"column {own!r} holds an image that is not base64; store it as a file and name its path"
            return row_finding(file, judgement.number, reason)
        name = f"{own} of row {judgement.number}"
        fields[side], held[name] = name, Entry(name, "file", len(data), functools.partial(bytes, data))
    return replace(judgement, fields={name: value for name, value in fields.items() if value is not None}, held=held)


def _is_short(value: object) -> bool:
    """A path, as nearly every cell holds one."""
    return value is None or (isinstance(value, str) and len(value) <= _PATH and not value.startswith((_URI, *_PYTHON)))


def _path_or_bytes(value: object) -> tuple[object, str | None]:
    """What the cell says of the image's path, and the image in base64 if the cell holds it."""
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        return (path, content) if isinstance(content, str) and content else (path, None)
    if isinstance(value, str) and value.startswith(_URI):
        return None, value.partition(",")[2]
    if isinstance(value, str) and len(value) > _PATH and value.startswith(_ENCODED):
        return None, value
    return value, None
