"""How much memory a piece of work may take before its allocations fail."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def limited(max_bytes: int) -> Iterator[None]:
    """``max_bytes`` beyond what this process has now; a larger allocation raises MemoryError. Linux, where anonymous
    memory counts as data (getrlimit(2))."""
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
