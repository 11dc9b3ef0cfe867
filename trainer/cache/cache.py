"""The cache of encodings: computed once, stored on disk under a key of everything they depend on.

An entry's name is the SHA-256 of everything its content follows from (encoder weights, image bytes, crop, ...), so
entries are never out of date, any number of runs share a cache, and two processes that write the same entry write
the same content. Each has a checksum (entry), which is verified when a run first reads the entry; the folder stays
within a size bound (eviction), and a run whose own entries (pins) do not fit the bound is refused.
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

from trainer.cache.entry import CorruptEntry, Tensors, pack, read_file, stored_size, unpack, verify
from trainer.cache.eviction import FREED_SHARE, evict, on_disk
from trainer.cache.pins import Pins
from trainer.cache.recently_read import RecentlyRead
from trainer.runtime.atomic_io import explain_disk_full, write_atomically
from trainer.runtime.errors import CacheEntryLost, CacheTooSmall, DiskFull

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
        self._sizes: dict[str, int] = {}  # of the entries that this process has found or written
        self._verified: set[str] = set()  # those whose content it has verified, or written
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
        """False also for an entry whose length is not what its header says; ``read`` verifies the content."""
        path = self._path(key)
        try:
            if self._sizes.get(key) != path.stat().st_size:
                self._sizes[key] = stored_size(path)
                _touch(path)
        except (OSError, CorruptEntry):
            self._forget(key)
            return False
        return True

    def read(self, key: str) -> Tensors:
        """Do not change the tensors in place: every read of the entry returns the same ones.

        Raises CacheEntryLost. Damaged entries of this run are then removed, so that the next run of its data computes
        them again.
        """
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
        self._verified.add(key)
        self._unscanned += on_disk(len(content))
        if self._unscanned > max(SCAN_AFTER, FREED_SHARE * (self.max_bytes or 0)):
            self._evict()

    def require_within_bound(self, missing: int = 0) -> None:
        """Raises CacheTooSmall if what is pinned, with ``missing`` bytes not yet written, exceeds the bound."""
        if self.max_bytes is None:
            return
        needed = missing + sum(map(self.size, self._pins.keys))
        if needed > self.max_bytes:
            raise CacheTooSmall(needed, self.max_bytes)

    def enforce_bound(self) -> None:
        """Call once the run's entries are written: evict down to the bound. Raises CacheTooSmall."""
        if self._unscanned:
            self._evict()
        self.require_within_bound()

    def _read(self, key: str) -> Tensors:
        try:
            content = self._content(key)
        except (OSError, CorruptEntry) as error:
            self._forget(key)
            if isinstance(error, CorruptEntry):
                self._remove_damaged(key)
            raise CacheEntryLost(str(self._path(key)), str(error)) from error
        tensors = unpack(content)
        self._recent.put(key, tensors, sum(tensor.nbytes for tensor in tensors.values()))
        return tensors

    def _content(self, key: str) -> bytearray:
        """Verified, once in this process. Raises OSError, CorruptEntry."""
        path = self._path(key)
        content = read_file(path)
        if key in self._verified:
            if len(content) != self._sizes[key]:
                raise CorruptEntry("its length has changed")
            return content
        verify(key, content)
        if key not in self._sizes:
            _touch(path)
        self._sizes[key] = len(content)
        self._verified.add(key)
        return content

    def _remove_damaged(self, key: str) -> None:
        """This entry, and what else of this run's is damaged: one fault of a disk rarely comes alone."""
        for suspect in {key, *self._pins.keys}:
            try:
                verify(suspect, read_file(self._path(suspect)))
            except CorruptEntry:
                self._forget(suspect)
                with suppress(OSError):
                    self._path(suspect).unlink()
            except OSError:
                self._forget(suspect)

    def _forget(self, key: str) -> None:
        self._sizes.pop(key, None)
        self._verified.discard(key)

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

    def size(self, key: str) -> int:
        """Bytes on disk, 0 for an entry that is not there."""
        try:
            return on_disk(self._sizes.get(key) or self._path(key).stat().st_size)
        except FileNotFoundError:
            return 0

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def _touch(path: Path) -> None:
    """Used now, as eviction sees it."""
    with suppress(PermissionError):  # another user's, which he may read
        os.utime(path)


def key_of(**dependencies: object) -> str:
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()
