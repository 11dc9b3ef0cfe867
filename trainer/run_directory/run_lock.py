"""Lock a run directory: one process, or one group of processes, trains in it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trainer.runtime.errors import RunInUse
from trainer.runtime.locks import file_lock

LOCK = ".lock"


@contextmanager
def lock_run_directory(directory: Path) -> Iterator[None]:
    """Raises RunInUse at once where another process is in its own block; one that was killed holds nothing."""
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(directory / LOCK, wait=False))
        except BlockingIOError as error:
            raise RunInUse(str(directory)) from error
        yield
