"""``python -m benchmarks.intake``: reading an upload against a bare Pillow loop, 50,000 pairs in bounded memory, and
the phases of 20,000 pairs.

Speed: the same images, decoded by Pillow alone and read by intake (listed, decoded, fingerprinted, hashed, stored,
paired up and reviewed), in turn on one core; the ratio of each turn, by processor time, which others on the machine
disturb less, and by the clock. Memory: the peak of a process that reads 50,000 pairs from one zip, above what it holds
when it starts. Phases: what fetching, reading and storing 20,000 pairs takes by the clock, in a zip and in parquet; on
the disk of the temporary directory. Writes benchmarks/results/intake.json; exits with 1 where something is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.intake.material import small_images, write_pairs
from benchmarks.intake.memory import Reading, read
from benchmarks.intake.phases import KINDS, Phases, measure
from benchmarks.intake.phases import PAIRS as PHASE_PAIRS
from benchmarks.intake.speed import FORMATS, Speed, compare
from worker.runtime.freed_memory import keep_freed_memory

RESULT = Path("benchmarks/results/intake.json")
PAIRS = 50_000
# To make a file takes 0.01 to 0.75 ms of a processor, by where on an ext4 disk: what a disk costs is none of a ratio.
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
WANTED = 0.8
MAX_STORE = 1 / 3  # of the time that reading takes
MAX_GROWTH = 192  # MiB; docs/operations/monitoring.md


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the large archive")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # the process that is measured
    parser.add_argument("--phases", help=argparse.SUPPRESS)  # likewise
    parser.add_argument("--phase-pairs", type=int, default=PHASE_PAIRS, help="whose phases are measured")
    given = parser.parse_args()
    keep_freed_memory()  # as an intake worker does
    if given.read is not None:
        print(json.dumps(asdict(read(given.read))))
        return 0
    if given.phases is not None:
        with tempfile.TemporaryDirectory() as directory:
            print(json.dumps(asdict(measure(given.phases, given.phase_pairs, Path(directory)))))
        return 0
    in_memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=in_memory) as directory:
        speeds = [compare(format_, Path(directory)) for format_ in FORMATS]
    Console().print(_table(speeds))
    with tempfile.TemporaryDirectory() as directory:
        reading = _memory(Path(directory), given.pairs)
    print(reading)
    phases = [_phases(kind, given.phase_pairs) for kind in KINDS]
    Console().print(_phase_table(phases))
    machine = {"processor": platform.machine(), "python": platform.python_version()}
    figures = {
        "speed": [asdict(one) | {"ratio": one.ratio} for one in speeds],
        "memory": asdict(reading),
        "phases": [asdict(one) for one in phases],
    }
    RESULT.write_text(json.dumps({"machine": machine, **figures}, indent=1) + "\n")
    missed = [one.format for one in speeds if one.ratio < WANTED]
    missed += ["memory"] if reading.peak_mib - reading.start_mib > MAX_GROWTH else []
    missed += [f"storing a {one.kind}" for one in phases if one.store > MAX_STORE * one.read]
    print(f"missed: {', '.join(missed)}" if missed else "all reached")
    return 1 if missed else 0


def _table(speeds: list[Speed]) -> Table:
    table = Table("format", "bare Pillow, images/s", "intake, images/s", f"ratio (quartiles); wanted {WANTED}", "clock")
    for one in speeds:
        low, middle, high = statistics.quantiles(one.ratios, n=4)
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(
            one.format, f"{one.bare:.1f}", f"{one.intake:.1f}", ratio, f"{statistics.median(one.by_clock):.2f}"
        )
    return table


def _memory(folder: Path, pairs: int) -> Reading:
    archive = folder / "many.zip"
    write_pairs(archive, small_images(2 * pairs), suffix="png")
    command = [sys.executable, "-m", "benchmarks.intake", "--read", str(archive)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return Reading(**json.loads(ran.stdout))


def _phases(kind: str, pairs: int) -> Phases:
    command = [sys.executable, "-m", "benchmarks.intake", "--phases", kind, "--phase-pairs", str(pairs)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return Phases(**json.loads(ran.stdout))


def _phase_table(phases: list[Phases]) -> Table:
    table = Table(
        "pairs", "MiB", "fetch, s", "read, s", "store, s", f"store/read; at most {MAX_STORE:.2f}", "memory, MiB"
    )
    for one in phases:
        seconds = [f"{value:.1f}" for value in (one.fetch, one.read, one.store)]
        ratio, memory = f"{one.store / one.read:.2f}", f"+ {one.grown_mib:.0f}"
        table.add_row(f"{one.pairs:,}, {one.kind}", f"{one.mib:.0f}", *seconds, ratio, memory)
    return table


if __name__ == "__main__":
    sys.exit(main())
