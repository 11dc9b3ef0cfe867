"""A cache of thumbnails, in memory: decoding a large image again for each page that shows it takes a second."""

from __future__ import annotations

from collections import OrderedDict

BYTES_LIMIT = 64 * 2**20


class Thumbnails:
    """By the image's SHA-256 and the longer side; the least recently read go first. Only the event loop's thread uses
    it."""

    def __init__(self, limit_bytes: int = BYTES_LIMIT) -> None:
        self._images: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._limit, self._bytes = limit_bytes, 0

    def get(self, sha256: str, side: int) -> bytes | None:
        found = self._images.get((sha256, side))
        if found is not None:
            self._images.move_to_end((sha256, side))
        return found

    def save(self, sha256: str, side: int, image: bytes) -> None:
        self._bytes += len(image) - len(self._images.pop((sha256, side), b""))
        self._images[sha256, side] = image
        while self._bytes > self._limit:
            self._bytes -= len(self._images.popitem(last=False)[1])
