"""Folders of attempts that ended without cleaning up, as after kill -9 or a power cut."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from store import leases
from store.files.file_leases import FILES
from store.generations.generation_leases import GENERATIONS
from store.jobs.job_leases import JOBS
from worker.resources import Resources


def attempt_folder(work_directory: Path, row_id: str, attempt: int) -> Path:
    """Where an attempt at a job, a file or images works; it exists only while the attempt owns the row."""
    return work_directory / "attempts" / row_id / str(attempt)


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another attempt at the same row has its folder beside this one
        folder.parent.rmdir()


def clear(resources: Resources) -> None:
    """Remove the folders whose attempts own nothing any more.

    The folders are listed first: one that is listed was made after its claim, so a claim that is not live has ended.
    """
    folders = list((resources.settings.work_directory / "attempts").glob("*/*"))
    if not folders:
        return
    with resources.sessions() as session:
        owned = leases.live_attempts(session, JOBS, FILES, GENERATIONS)
    live = {(row_id, str(attempt)) for row_id, attempt in owned}
    for folder in folders:
        if (folder.parent.name, folder.name) not in live:
            remove_folder(folder)
