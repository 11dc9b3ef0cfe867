"""Move a local file into a blob store: by a rename if both are on one filesystem, else by streaming.

A rename writes no byte again, however large the file. What is placed is on the disk when this returns: a row that
names it may be committed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.store import LocalStore, ObjectStore

PARTS_AT_ONCE = 3  # of 5 MiB; obstore's own 12 at once would hold 60 MiB for every upload


def move_file(store: ObjectStore, path: Path, key: str) -> None:
    """``path`` may be gone afterwards. The object appears whole or not at all."""
    if isinstance(store, LocalStore) and store.prefix is not None and _renamed(path, Path(store.prefix) / key):
        return
    with path.open("rb") as content:
        put(store, key, content)


def put(store: ObjectStore, key: str, content: bytes | BinaryIO) -> None:
    """Whole or not at all, and still there after a power cut; obstore itself does not fsync local files."""
    obstore.put(store, key, content, max_concurrency=PARTS_AT_ONCE)
    if isinstance(store, LocalStore) and store.prefix is not None:
        target = Path(store.prefix) / key
        _sync(target)
        _sync(target.parent)


def _renamed(path: Path, target: Path) -> bool:
    """False where they lie on different filesystems."""
    _sync(path)
    try:
        _move(path, target)
    except FileNotFoundError:
        _move(path, target)  # the folder was removed between its making and the rename: an upload ended
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
