"""The directories that attempts work in, and removing stale ones, as after kill -9 or a power cut."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from store import leases
from store.turns import FILES, GENERATIONS, JOBS
from worker.resources import Resources


def attempt_directory(work_directory: Path, row_id: str, attempt: int) -> Path:
    """Where an attempt at a job, a file or images works; it exists only while the attempt owns the row."""
    return work_directory / "attempts" / row_id / str(attempt)


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):  # another attempt at the same row has its directory next to this one
        directory.parent.rmdir()


def remove_stale(resources: Resources) -> None:
    """Remove the directories whose attempts own no row any more.

    The directories are listed first. A listed one was made after its claim, so a claim that is not live has ended.
    """
    directories = list((resources.settings.work_directory / "attempts").glob("*/*"))
    if not directories:
        return
    with resources.sessions() as session:
        attempts = leases.live_attempts(session, JOBS, FILES, GENERATIONS)
    live = {(row_id, str(attempt)) for row_id, attempt in attempts}
    for directory in directories:
        if (directory.parent.name, directory.name) not in live:
            remove(directory)
