"""``python -m benchmarks.intake``: reading an upload against a bare Pillow loop, and 50,000 pairs in bounded memory.

Speed: the same images, decoded by Pillow alone and read by intake (listed, decoded, fingerprinted, hashed, stored,
paired up and reviewed), in turn on one core; the ratio of each turn, by processor time, which others on the machine
disturb less. Memory: the peak of a process that reads 50,000 pairs from one zip, above what it holds when it starts.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.intake.material import OPTIONS, encoded, photograph, small_images, write_pairs
from intake import prepare_upload

IMAGES, TURNS, PAIRS = 60, 5, 50_000
WANTED = 0.8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the large archive")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # the process that is measured
    given = parser.parse_args()
    if given.read is not None:
        return _read(given.read)
    with tempfile.TemporaryDirectory() as directory:
        speed(Path(directory))
        memory(Path(directory), given.pairs)
    return 0


def speed(folder: Path) -> None:
    table = Table("format", "bare Pillow, images/s", "intake, images/s", f"ratio (quartiles); wanted {WANTED}")
    for format_ in OPTIONS:
        files = [encoded(photograph(number), format_) for number in range(IMAGES)]
        archive = folder / f"{format_}.zip"
        write_pairs(archive, iter(files), suffix=format_.lower())
        turns = [
            (_seconds(partial(_decode, archive)), _seconds(partial(_prepare, archive, folder))) for _ in range(TURNS)
        ]
        ratios = [bare / ours for bare, ours in turns]
        low, middle, high = statistics.quantiles(ratios, n=4)
        bare, ours = (IMAGES / statistics.median(one[which] for one in turns) for which in (0, 1))
        table.add_row(format_, f"{bare:.1f}", f"{ours:.1f}", f"{middle:.2f} ({low:.2f} to {high:.2f})")
    Console().print(table)


def _decode(archive: Path) -> None:
    """What every reader has to do: take the bytes out of the archive and decode them."""
    with zipfile.ZipFile(archive) as files:
        for name in files.namelist():
            if name.startswith("images/"):
                with Image.open(io.BytesIO(files.read(name))) as image:
                    image.load()


def _prepare(archive: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        prepared = prepare_upload(archive, Path(work))
        assert prepared.count == IMAGES // 2


def _seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def memory(folder: Path, pairs: int) -> None:
    archive = folder / "many.zip"
    write_pairs(archive, small_images(2 * pairs), suffix="png")
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.intake", "--read", str(archive)], check=True, capture_output=True, text=True
    )
    Console().print(ran.stdout.strip())


def _read(archive: Path) -> int:
    before = _peak_mib()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=archive.parent) as work:
        prepared = prepare_upload(archive, Path(work))
    seconds, peak = time.monotonic() - started, _peak_mib()
    grown = peak - before
    print(
        f"{prepared.count:,} pairs from a zip of {archive.stat().st_size / 2**20:.0f} MiB in {seconds:.0f} s: peak "
        f"memory {peak:.0f} MiB, {grown:.0f} above the start ({grown * 2**20 / prepared.count:.0f} bytes a pair)"
    )
    return 0


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
