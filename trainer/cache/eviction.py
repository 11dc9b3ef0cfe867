"""Evict cache entries that no live run needs, least recently used first.

Recency is a file's modification time, which ``Cache`` sets when a run first uses an entry. Sizes are in whole blocks,
as file systems allot them. A scan costs about 8 us an entry (1.5 s for 200,000), so it is made rarely.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.cache.pins import reading_pins
from trainer.runtime.atomic_io import PARTIAL
from trainer.runtime.locks import file_lock

LOCK = "eviction.lock"
FREED_SHARE = 0.05  # part of the size that is made free when it is exceeded
BLOCK = 4096
ABANDONED_AFTER = 3600  # seconds since a file was last written to: its writer was killed

# Nothing else is ever removed: a folder that is named as the cache by mistake keeps what it holds.
_FOLDER = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(r"([0-9a-f]{64})\.safetensors")
_PARTIAL = re.compile(rf"\.[0-9a-f]{{64}}\.safetensors\.[0-9a-f]+{re.escape(PARTIAL)}")


class EntryOnDisk(NamedTuple):
    """``used`` is in nanoseconds, ``size`` in bytes of whole blocks."""

    used: int
    size: int
    key: str
    path: str


def evict(cache: Path, max_bytes: int | None, *, at_least: int = 0, wait: bool = False) -> int:
    """Bring the cache below ``max_bytes`` if it exceeds them, and free ``at_least`` bytes. Returns the bytes freed.

    None for no bound. Less is freed where live runs need the rest; nothing where another process is evicting, without
    ``wait``.
    """
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(cache / LOCK, wait=wait):
            return _evict(cache, max_bytes, at_least)
    except BlockingIOError:
        return 0


def on_disk(size: int) -> int:
    """Bytes of the blocks that a file of ``size`` bytes takes."""
    return -(-size // BLOCK) * BLOCK


def _evict(cache: Path, max_bytes: int | None, at_least: int) -> int:
    entries = sorted(_scan(cache))
    wanted = max(at_least, _too_much(sum(entry.size for entry in entries), max_bytes))
    return _remove(cache, entries, wanted)


def _too_much(size: int, max_bytes: int | None) -> int:
    if max_bytes is None or size <= max_bytes:
        return 0
    return size - int((1 - FREED_SHARE) * max_bytes)


def _remove(cache: Path, entries: Sequence[EntryOnDisk], wanted: int) -> int:
    freed = 0
    with reading_pins(cache) as pinned:
        for entry in entries:
            if freed >= wanted:
                break
            if entry.key not in pinned and _unlinked(entry.path):
                freed += entry.size
    return freed


def _scan(cache: Path) -> Iterator[EntryOnDisk]:
    for folder in cache.iterdir():
        if _FOLDER.fullmatch(folder.name) and folder.is_dir():
            with os.scandir(folder) as found:
                for file in found:
                    yield from _entry(file)


def _entry(file: os.DirEntry[str]) -> Iterator[EntryOnDisk]:
    """None for what is no entry; a partial file that nobody writes any more is removed."""
    named = _ENTRY.fullmatch(file.name)
    if named is None and not _PARTIAL.fullmatch(file.name):
        return
    try:
        status = file.stat(follow_symlinks=False)
    except FileNotFoundError:  # renamed or removed just now
        return
    if named is None:
        _sweep(file.path, status)
    elif stat.S_ISREG(status.st_mode):
        yield EntryOnDisk(status.st_mtime_ns, on_disk(status.st_size), named[1], file.path)


def _sweep(path: str, status: os.stat_result) -> None:
    if time.time() - status.st_mtime < ABANDONED_AFTER:
        return
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a writer, however slow, holds it
            _unlinked(path)
    except (BlockingIOError, FileNotFoundError, PermissionError):
        return


def _unlinked(path: str) -> bool:
    try:
        Path(path).unlink()
    except (FileNotFoundError, PermissionError):  # another user's, who may clean up himself
        return False
    return True
