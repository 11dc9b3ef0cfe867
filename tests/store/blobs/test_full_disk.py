from __future__ import annotations

import errno

import pytest
from obstore.exceptions import GenericError
from psycopg import errors
from sqlalchemy.exc import OperationalError

from store.blobs.full_disk import says_full_disk

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (TimeoutError(), False),
        (OperationalError("", {}, errors.DiskFull("could not extend file")), True),
        (OperationalError("", {}, errors.AdminShutdown("terminating connection")), False),
        (GenericError("Unable to copy data to file: No space left on device (os error 28)"), True),
        (GenericError("Unable to open file: Permission denied (os error 13)"), False),
        (ValueError("(os error 28)"), False),
    ],
)
def test_a_full_disk_is_known_from_any_layer(error: Exception, full: bool) -> None:
    assert says_full_disk(error) is full
