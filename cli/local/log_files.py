"""Logs of `pairtune up` stay small: a service writes to its file for as long as it lives, perhaps for months."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 20 * 2**20  # of a log; with the one before it twice as much, some days of a busy service


def keep_small(logs: Iterable[Path], *, max_bytes: int = MAX_BYTES) -> None:
    """Move what has grown beyond that to ``<name>.1``, which held what was there before.

    Services append, and keep their file open: it is copied and emptied in place. A line written in between is lost,
    and on a full disk all of it.
    """
    for log in logs:
        if log.exists() and log.stat().st_size > max_bytes:
            with contextlib.suppress(OSError):
                shutil.copy2(log, log.with_name(f"{log.name}.1"))
            with log.open("r+b") as file:
                file.truncate(0)
