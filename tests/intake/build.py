"""Building uploads, good and bad, byte by byte where no tool would write them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from PIL import Image

from intake import Finding, Policy, PreparedUpload, prepare_upload
from intake.limits import Limits

Colour = tuple[int, ...]
TarMode = Literal["w:", "w:gz"]


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def png(colour: Colour = (200, 30, 60), size: tuple[int, int] = (96, 64)) -> bytes:
    return encoded(Image.new("RGB", size, colour))


def jsonl(*rows: Mapping[str, object]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


ROW = {"prompt": "a red fox", "chosen": "images/a.png", "rejected": "images/b.png"}


def good_files() -> dict[str, bytes]:
    """One good pair, its metadata first."""
    return {"metadata.jsonl": jsonl(ROW), "images/a.png": png((255, 0, 0)), "images/b.png": png((0, 0, 255))}


def zip_of(files: Iterable[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same bytes whenever it is made."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files:
            if isinstance(name, str):
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o644 << 16
            else:
                entry = name
            archive.writestr(entry, data, compress_type=compression)
    return file.getvalue()


def tar_of(
    files: Iterable[tuple[str | tarfile.TarInfo, bytes]], mode: TarMode = "w:", format_: int = tarfile.PAX_FORMAT
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=format_) as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            if entry.isreg():
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def prepare(archive: bytes, folder: Path, limits: Limits | None = None, policy: Policy | None = None) -> PreparedUpload:
    """Run intake on the bytes as an uploaded file, in ``folder``/work."""
    upload = folder / "upload"
    upload.write_bytes(archive)
    return prepare_upload(upload, folder / "work", limits or Limits(), policy or Policy())


def only(findings: Iterable[Finding]) -> Finding:
    [finding] = findings
    return finding


def codes(prepared: PreparedUpload) -> list[str]:
    return [finding.code for finding in prepared.findings]


CENTRAL = b"PK\x01\x02"


def patch_central(archive: bytes, index: int, offset: int, value: int) -> bytes:
    """Overwrite the 32-bit field at ``offset`` of the ``index``-th central directory record of a zip."""
    at = -1
    for _ in range(index + 1):
        at = archive.index(CENTRAL, at + 1)
    return archive[: at + offset] + struct.pack("<I", value) + archive[at + offset + 4 :]


def pixel(path: Path, at: tuple[int, int] = (0, 0)) -> Colour:
    with Image.open(path) as image:
        value = image.getpixel(at)
    assert isinstance(value, tuple)
    return value
