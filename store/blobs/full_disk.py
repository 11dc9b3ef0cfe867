"""Whether an error of the system, of the blob store or of PostgreSQL means that a disk is full."""

from __future__ import annotations

import errno

from obstore.exceptions import BaseError
from sqlalchemy.exc import DBAPIError

# A file's size limit (EFBIG) is to a writer what a full disk and an exhausted quota are.
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL = "53100"  # PostgreSQL's SQLSTATE


def says_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in DISK_FULL_ERRNOS
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) == DISK_FULL
    # obstore hands on the system's error in words alone.
    return isinstance(error, BaseError) and any(f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS)
