"""File locks between processes (flock): the kernel frees a lock when its holder ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``path``, alone or with others that hold it ``shared``. It is made if missing, and stays.

    Raises BlockingIOError without ``wait`` where the lock is not free.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("ab") as file:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield
