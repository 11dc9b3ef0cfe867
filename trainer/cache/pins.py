"""Pins: the cache entries that live processes need, one locked file a process in ``pins/``.

A file whose lock is free is of a process that ended, kill -9 included. Whoever decides from the pins what to remove
holds ``reading_pins`` until it is removed, so that nothing is pinned, and then found, in between.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.runtime.atomic_io import explain_disk_full
from trainer.runtime.locks import file_lock

PINS, LOCK = "pins", "pins.lock"


class Pins:
    """This process's."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._path = cache / PINS / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._descriptor = -1
        self._open: weakref.finalize[[int], Pins] | None = None  # closes the file, at the latest with this
        self.keys: set[str] = set()

    def add(self, keys: Iterable[str]) -> None:
        """Waits while another process removes entries. Raises DiskFull."""
        new = [key for key in dict.fromkeys(keys) if key not in self.keys]
        if not new:
            return
        with explain_disk_full(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self._cache / LOCK, shared=True):
                self._write("".join(f"\n{key}" for key in new).encode() + b"\n")
        self.keys.update(new)

    def release(self) -> None:
        if self._open is not None:
            self._path.unlink(missing_ok=True)
            self._open()
        self._open = None
        self.keys.clear()

    def _write(self, lines: bytes) -> None:
        if self._open is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._open = weakref.finalize(self, os.close, self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        while lines:
            lines = lines[os.write(self._descriptor, lines) :]


@contextmanager
def reading_pins(cache: Path) -> Iterator[set[str]]:
    """All keys that live processes have pinned; none can be added within the block. Other pins are removed."""
    with file_lock(cache / LOCK):
        yield {key for path in (cache / PINS).glob("*") for key in _live(path)}


def _live(path: Path) -> list[str]:
    """None of a process that ended, whose file is removed."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().decode().split()
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # its process ended well just now
        pass
    return []
