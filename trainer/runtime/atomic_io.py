"""Atomic writes: a file or directory appears whole or not at all, even if the process or machine stops."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.runtime.errors import DiskFull

PARTIAL = ".partial"


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Readers, other processes too, see the old state or all of ``content``; without ``sync`` until a power cut.

    The partial file is locked (flock) until it has its name, which distinguishes it from one that a killed
    process left.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    with explain_disk_full(path):
        try:
            with partial.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(content)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill the directory that is yielded; when the block ends well it appears as ``path``, which must not exist."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    with explain_disk_full(path):
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in partial.iterdir():
                _sync(file)
            _sync(partial)
            partial.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process left half-written directly in ``folder``, which no other process may be using."""
    for partial in folder.glob(f".*{PARTIAL}"):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(path)) from error
        raise
