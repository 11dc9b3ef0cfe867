"""``python -m demo.benchmark [--quick]``: run every trial that is missing, then write the report.

Interrupted at any point it goes on where it stopped: finished trials are in demo/benchmark/results, half finished ones
start again. ``--quick`` runs one domain and two methods with the hyperparameters that the whole benchmark chose, into
var/benchmark/quick.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from demo.benchmark.plan import SWEPT_DOMAIN, WHOLE, Scope
from demo.benchmark.trial import Results

BASE = Path("demo/base/emoji-xl")
KEPT = Results(Path(__file__).parent / "results")
HOME = Path("var/benchmark")
QUICK_HOME = HOME / "quick"
QUICK = Scope((SWEPT_DOMAIN,), ("dpo", "mapo"), seeds=(1, 2), sweeps=False, chosen_by=KEPT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one domain, two methods, two seeds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that train; default: cores")
    parser.add_argument("command", nargs="?", default="all", choices=("all", "work", "measure", "report", "scorers"))
    given = parser.parse_args()
    if given.command == "scorers":
        from demo.benchmark.scorers import train_scorers

        print(train_scorers())
        return 0
    if given.command in ("all", "work"):
        run_workers(given.workers, quick=given.quick)
    if given.command in ("all", "measure") and not given.quick:
        measure()
    if given.command in ("all", "report"):
        from demo.benchmark.report import write_quick, write_report

        write_quick(QUICK, Results(QUICK_HOME / "results"), QUICK_HOME) if given.quick else write_report(KEPT, HOME)
    return 0


def run_workers(count: int, *, quick: bool) -> None:
    """One process each, which share the cores evenly; raises CalledProcessError if one fails."""
    threads = str(max(1, (os.cpu_count() or 1) // count))
    command = [sys.executable, "-m", "demo.benchmark.worker", *(["--quick"] if quick else [])]
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    workers = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:
        for worker in workers:
            worker.wait()  # the terminal has interrupted them too
        raise
    if any(codes):
        raise subprocess.CalledProcessError(max(codes, key=abs), command)


def measure() -> None:
    """Reference mismatch and cost, each alone on the machine."""
    from demo.benchmark import cost, mismatch
    from demo.benchmark.work import Worker

    worker = Worker(BASE.resolve(), HOME, KEPT, WHOLE)
    mismatch.measure(worker)
    if not cost.read(KEPT.folder):
        cost.measure(worker)


if __name__ == "__main__":
    sys.exit(main())
