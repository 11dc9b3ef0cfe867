"""The cache of encodings: computed once, stored on disk under a key of everything they depend on.

An entry's name is the SHA-256 of everything its content follows from (encoder weights, image bytes, crop, ...), so
entries are never out of date, any number of runs share a cache, and two processes that write the same entry write
the same content. Each has a checksum (entry); the folder stays within a size bound (eviction), except for what
live runs have pinned (pins).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from trainer.cache.entry import CorruptEntry, Tensors, pack, read_file, unpack, verify
from trainer.cache.eviction import FREED_SHARE, evict, on_disk
from trainer.cache.pins import Pins
from trainer.cache.recently_read import RecentlyRead
from trainer.runtime.atomic_io import explain_disk_full, write_atomically
from trainer.runtime.errors import CacheEntryLost, DiskFull
from trainer.spec.events import Warned

__all__ = ["Cache", "Tensors", "key_of"]

IN_MEMORY = 64 * 2**20  # a batch and the prompts that come again and again; the system's page cache does the rest
SCAN_AFTER = 64 * 2**20  # bytes written, at least, between two scans of the folder's size
DISK_FULL_FREES = 2**30  # bytes evicted when the disk is full, so that it is not full again at once


class Cache:
    """``max_bytes`` bounds the folder, None for no bound.

    As a context it holds what was pinned until the end of the block, and then brings the folder within its bound.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._pins = Pins(folder)
        self._sizes: dict[str, int] = {}  # of the entries that this process has verified or written
        self._unscanned = 0  # bytes written since the last eviction
        self._recent = RecentlyRead(IN_MEMORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pins.release()
        with suppress(OSError):  # whatever it is, the run has ended as it has
            self._evict()

    def pin(self, keys: Iterable[str]) -> None:
        """Call before ``has``: no process evicts these entries while this one lives. Raises DiskFull."""
        wanted = list(keys)
        self._evicting_when_full(lambda: self._pins.add(wanted))

    def has(self, key: str) -> bool:
        """False also for an entry that is damaged: its content is verified, once in this process."""
        path = self._path(key)
        try:
            if self._sizes.get(key) != path.stat().st_size:
                self._verified(key)
        except (OSError, CorruptEntry):
            self._sizes.pop(key, None)
            return False
        return True

    def read(self, key: str) -> Tensors:
        """Do not change the tensors in place: every read of the entry returns the same ones. Raises CacheEntryLost."""
        recent = self._recent.get(key)
        if recent is None:
            recent = self._read(key)
        return dict(recent)

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Raises DiskFull when nothing is left to evict either."""
        content = pack(key, tensors)
        self._evicting_when_full(lambda: self._write(self._path(key), content))
        self._recent.drop(key)
        self._sizes[key] = len(content)
        self._unscanned += on_disk(len(content))
        if self._unscanned > max(SCAN_AFTER, FREED_SHARE * (self.max_bytes or 0)):
            self._evict()

    def enforce_bound(self) -> Warned | None:
        """Call once the run's entries are written: evict down to the bound, and warn if the run alone exceeds it.

        What is pinned stays, so the run goes on either way.
        """
        if self._unscanned:
            self._evict()
        needed = sum(map(self._size, self._pins.keys))
        if self.max_bytes is None or needed <= self.max_bytes:
            return None
        message = (
            f"This run alone needs {_gib(needed)} GiB of the cache, {_gib(needed - self.max_bytes)} GiB more than its "
            f"bound of {_gib(self.max_bytes)} GiB. It goes on; later runs of these images have to encode some of them "
            f"again, until the bound is raised."
        )
        return Warned(code="cache_too_small", message=message)

    def _read(self, key: str) -> Tensors:
        try:
            content = read_file(self._path(key)) if key in self._sizes else self._verified(key)
            if len(content) != self._sizes[key]:
                raise CorruptEntry("its length has changed")
        except (OSError, CorruptEntry) as error:
            self._sizes.pop(key, None)
            raise CacheEntryLost(str(self._path(key)), str(error)) from error
        tensors = unpack(content)
        self._recent.put(key, tensors, len(content))
        return tensors

    def _verified(self, key: str) -> bytearray:
        """Raises OSError, CorruptEntry."""
        path = self._path(key)
        content = read_file(path)
        verify(key, content)
        with suppress(PermissionError):  # another user's, which he may read
            os.utime(path)  # used now, as eviction sees it
        self._sizes[key] = len(content)
        return content

    def _write(self, path: Path, content: bytes) -> None:
        """Not synced: after a power cut an entry may be damaged, which is found and mended."""
        with explain_disk_full(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, content, sync=False)
        except IsADirectoryError:
            shutil.rmtree(path)
            write_atomically(path, content, sync=False)

    def _evicting_when_full(self, act: Callable[[], None]) -> None:
        """Retry ``act`` while the disk is full and there is something to evict."""
        while True:
            try:
                return act()
            except DiskFull:
                with explain_disk_full(self.folder):
                    freed = evict(self.folder, self.max_bytes, at_least=DISK_FULL_FREES, wait=True)
                if not freed:
                    raise

    def _evict(self) -> None:
        self._unscanned = 0
        if self.max_bytes is not None:
            evict(self.folder, self.max_bytes)

    def _size(self, key: str) -> int:
        try:
            return on_disk(self._sizes.get(key) or self._path(key).stat().st_size)
        except FileNotFoundError:
            return 0

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g}"


def key_of(**dependencies: object) -> str:
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()
