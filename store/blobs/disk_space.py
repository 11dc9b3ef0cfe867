"""Free space where a process writes, and whether enough of it is left to begin something new.

What is under way may use the rest: new work is rejected while there is still space to end the old.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from store.settings import Settings


def of_the_api(settings: Settings) -> dict[str, Path]:
    return {"uploads": settings.upload_directory} | _blobs(settings)


def of_a_worker(settings: Settings) -> dict[str, Path]:
    return {"work": settings.work_directory} | _blobs(settings)


def free(directories: Mapping[str, Path]) -> dict[str, int]:
    """In bytes, by use."""
    return {use: shutil.disk_usage(_existing(path)).free for use, path in directories.items()}


def short(settings: Settings, directories: Mapping[str, Path]) -> dict[str, int]:
    """What is free of those that have less than ``min_free_bytes``."""
    return {use: left for use, left in free(directories).items() if left < settings.min_free_bytes}


def _blobs(settings: Settings) -> dict[str, Path]:
    """Nothing for an object store."""
    url = settings.effective_blob_url
    return {"blobs": Path(url.removeprefix("file://"))} if url.startswith("file://") else {}


def _existing(path: Path) -> Path:
    """A directory that is made when it is needed lies where its parent does."""
    while not path.exists():
        path = path.parent
    return path
