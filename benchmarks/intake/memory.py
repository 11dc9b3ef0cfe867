"""What one reading takes of memory, in a process of its own."""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from intake import prepare_upload


@dataclass(frozen=True)
class Reading:
    """Peaks of resident memory in MiB: when the process had started, and when it was done."""

    pairs: int
    archive_mib: float
    seconds: float
    start_mib: float
    peak_mib: float

    def __str__(self) -> str:
        grown = self.peak_mib - self.start_mib
        return (
            f"{self.pairs:,} pairs from a zip of {self.archive_mib:.0f} MiB in {self.seconds:.0f} s: peak memory "
            f"{self.peak_mib:.0f} MiB, {grown:.0f} above the start ({grown * 2**20 / self.pairs:.0f} bytes a pair)"
        )


def read(archive: Path) -> Reading:
    start, started = _peak_mib(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=archive.parent) as work:
        prepared = prepare_upload(archive, Path(work))
    seconds, size = time.monotonic() - started, archive.stat().st_size / 2**20
    return Reading(prepared.count, size, seconds, start, _peak_mib())


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
