"""The normalised images of one upload: files in the work directory, named by their SHA-256, each written once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from intake.archives.entries import Entry
from intake.errors import ImageError, IntakeError
from intake.images.normalise import normalise
from intake.limits import Limits


@dataclass(frozen=True)
class StoredImage:
    """``sha256`` is the hex digest of the normalised file, ``fingerprint`` what near copies share; sizes are pixels."""

    sha256: str
    width: int
    height: int
    fingerprint: bytes
    profile_ignored: bool


class ImageFolder:
    """Remembers every entry it was given, so that an image that many rows name is decoded once."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.written: dict[str, Path] = {}
        self.measured: dict[str, StoredImage] = {}
        self.pixels = 0  # that were decoded, of each image as often as it was
        self._folder = folder
        self._limits = limits
        self._outcomes: dict[str, StoredImage | IntakeError] = {}

    def add(self, entry: Entry, *, once: bool = False) -> StoredImage | IntakeError:
        """Normalise and write the entry's image, or say why not. ``once``: no other row can name this entry."""
        if once:
            try:
                return self._store(entry)
            except IntakeError as error:
                return error
        if entry.name not in self._outcomes:
            try:
                self._outcomes[entry.name] = self._store(entry)
            except IntakeError as error:
                self._outcomes[entry.name] = error
        return self._outcomes[entry.name]

    def _store(self, entry: Entry) -> StoredImage:
        if entry.size > self._limits.image_bytes:
            reason = f"is larger than {self._limits.image_bytes:,} bytes; scale it down or save it as JPEG"
            raise ImageError("image_too_large", reason)
        image = normalise(entry.read(), self._limits)
        self.pixels += image.width * image.height
        sha256 = hashlib.sha256(image.data).hexdigest()
        if sha256 not in self.written:
            self.written[sha256] = self._write(image.data, sha256)
        stored = StoredImage(sha256, image.width, image.height, image.fingerprint, image.profile_ignored)
        return self.measured.setdefault(sha256, stored)

    def _write(self, data: bytes, sha256: str) -> Path:
        path = self._folder / sha256  # the folder is one attempt's: what a crash leaves half written is never read
        with path.open("wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
        return path
