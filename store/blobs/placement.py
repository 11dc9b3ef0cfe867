"""Move a local file into a blob store: by a rename if both are on one filesystem, else by streaming.

A rename writes no byte again, however large the file. What is placed is on the disk when this returns: a row that
names it may be committed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.store import LocalStore, ObjectStore

PARTS_AT_ONCE = 3  # of 5 MiB; obstore's own 12 at once would hold 60 MiB for every upload
# A disk writes its journal once for all that wait for it: on ext4, 16 threads synced 16 times as many files a second.
THREADS = 16


def move_file(store: ObjectStore, path: Path, key: str) -> None:
    """``path`` may be gone afterwards. The object appears whole or not at all."""
    if isinstance(store, LocalStore) and store.prefix is not None and _renamed(path, Path(store.prefix) / key):
        return
    with path.open("rb") as content:
        put(store, key, content)


def move_files(store: ObjectStore, files: Sequence[tuple[Path, str]], present: Iterable[str] = ()) -> None:
    """As ``move_file``, many at once: no file has its key before its bytes are on the disk.

    ``present`` are keys that somebody else has just stored, perhaps without having synced them yet.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        first, rest = files[:1], files[1:]
        folder = Path(store.prefix) if isinstance(store, LocalStore) and store.prefix is not None else None
        if folder is not None and all(_renamed(path, folder / key) for path, key in first):
            _finish(pool.map(_sync, [path for path, _ in rest]))
            for path, key in rest:
                _rename(path, folder / key)
            _finish(pool.map(_sync, {(folder / key).parent for _, key in rest}))
        else:  # from another filesystem (two mounts of one are two), or to an object store
            _finish(pool.map(lambda file: move_file(store, *file), files))
        _finish(pool.map(lambda key: sync(store, key), present))


def sync(store: ObjectStore, key: str) -> None:
    """On the disk with its name, whoever stored it. Nothing there is no error: a sweep was faster."""
    if isinstance(store, LocalStore) and store.prefix is not None:
        target = Path(store.prefix) / key
        with suppress(FileNotFoundError):
            _sync(target)
            _sync(target.parent)


def put(store: ObjectStore, key: str, content: bytes | BinaryIO) -> None:
    """Whole or not at all, and still there after a power cut; obstore itself does not fsync local files."""
    obstore.put(store, key, content, max_concurrency=PARTS_AT_ONCE)
    if isinstance(store, LocalStore) and store.prefix is not None:
        target = Path(store.prefix) / key
        _sync(target)
        _sync(target.parent)


def _finish(results: Iterable[None]) -> None:
    """Wait for all; raises what any of them raised."""
    for _ in results:
        pass


def _renamed(path: Path, target: Path) -> bool:
    """False where they lie on different filesystems."""
    _sync(path)
    try:
        _rename(path, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    _sync(target.parent)
    return True


def _rename(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.replace(target)
    except FileNotFoundError:  # the folder was removed between its making and the rename: an upload ended
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
