"""The home of `up`: a directory that other users of the machine cannot read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

OWN, TRAVERSED = 0o700, 0o711
FOLDERS = ("logs", "blobs", "uploads", "work", "valkey")


def make_private(home: Path) -> None:
    """Make the home if there is none, and take from others what they may do in it.

    As root, PostgreSQL runs as another user, which has to pass through the home to its own folder: then the folders
    are closed one by one. A directory that belongs to another user, or to all (/tmp), stays as it is.
    """
    home.mkdir(mode=OWN, parents=True, exist_ok=True)
    found = home.stat()
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        return
    home.chmod(TRAVERSED if os.geteuid() == 0 else OWN)
    for folder in (home / name for name in FOLDERS):
        folder.mkdir(mode=OWN, exist_ok=True)
        folder.chmod(OWN)
