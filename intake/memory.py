"""How much memory a piece of work may take before its allocations fail; Arrow, which keeps within that."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def arrow() -> Any:
    """pyarrow, with the system's memory pool. Its own pools reserve a GiB at their first allocation, which fails under
    a limit that is lower, whatever the file. Imported late: the API imports this package for its reports and should
    not use 60 MB for Arrow."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # decompression takes the pool that this names
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())  # for a process that had imported pyarrow before
    return pa


@contextmanager
def limited(max_bytes: int) -> Iterator[None]:
    """``max_bytes`` beyond what this process has now; a larger allocation raises MemoryError. Linux, where anonymous
    memory counts as data (getrlimit(2)). Address space that is only reserved does not count, nor do mapped files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data() + max_bytes
    try:
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if soft == resource.RLIM_INFINITY else min(soft, wanted), hard)
        )
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))


def peak() -> int:
    """Bytes: the largest resident size that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
