"""``python -m research [--quick | --fresh]``: run every trial that is missing, then write the report.

Without an option what is missing of the kept results in research/results is run, and docs/benchmark.md written
from them: where nothing is missing, that takes a minute. ``--fresh`` runs all from nothing, the search too, into
var/benchmark/fresh, writes its page there and says how far it agrees with the kept results. ``--quick`` runs one
domain and two methods, with the hyperparameters that the kept results chose, into var/benchmark/quick.

Interrupted at any point, each goes on where it stopped: finished trials are kept, half finished ones start again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from research.editions import BASE, STORED, Edition, EditionName, edition
from research.plan import wanted
from research.trials.workers import Stopped, run_workers


def main() -> int:
    given = _arguments()
    if given.command == "scorers":
        from demo.emoji.scorers import train_scorers

        print(train_scorers())
        return 0
    chosen = edition(given.edition, given.home)
    started = time.monotonic()
    if given.command in ("all", "work"):
        try:
            run_workers(given.workers, chosen)
        except Stopped as stopped:
            print("Stopped. The same command goes on from the trials that are finished.", file=sys.stderr)
            return 128 + stopped.signal
    if given.command in ("all", "measure") and chosen.name != "quick":
        measure(chosen)
    if given.command in ("all", "report"):
        report(chosen)
        print(f"Took {_minutes(time.monotonic() - started)}, of the processors {_minutes(_processor_seconds())}.")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m research", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    names: tuple[EditionName, ...] = ("quick", "fresh")
    for name, explanation in zip(names, ("one domain, two methods, two seeds", "all from nothing"), strict=True):
        which.add_argument(
            f"--{name}", dest="edition", action="store_const", const=name, default="kept", help=explanation
        )
    parser.add_argument("--home", type=Path, help="where what is made lies; default: under var/benchmark")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that train; default: cores")
    parser.add_argument("command", nargs="?", default="all", choices=("all", "work", "measure", "report", "scorers"))
    return parser.parse_args()


def measure(chosen: Edition) -> None:
    """Reference mismatch and cost, each alone on the machine."""
    from research.trials import cost, mismatch
    from research.trials.work import Worker

    worker = Worker(BASE.resolve(), chosen.home, chosen.results, chosen.scope)
    mismatch.measure(worker)
    if not cost.read(chosen.results.folder):
        cost.measure(worker)


def report(chosen: Edition) -> None:
    from research.page.agreement import agreement
    from research.page.report import write_quick, write_report

    if chosen.name == "quick":
        write_quick(chosen.scope, chosen.results, chosen.page)
    else:
        write_report(chosen.results, chosen.home, chosen.page, chosen.pictures)
    if chosen.name != "kept":
        print(agreement(set(wanted(chosen.scope, chosen.results)), chosen.results, STORED))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _processor_seconds() -> float:
    """User time of this process and of those that it started."""
    spent = os.times()
    return spent.user + spent.children_user


if __name__ == "__main__":
    sys.exit(main())
