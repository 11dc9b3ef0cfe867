"""``python -m research.trials.worker EDITION HOME PARENT``: one of the processes that run trials."""

from __future__ import annotations

import argparse
from pathlib import Path

from research.editions import BASE, EDITIONS, edition
from research.trials.work import Worker
from worker.runtime.process import die_with_parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("edition", choices=EDITIONS)
    parser.add_argument("home", type=Path)
    parser.add_argument("parent", type=int, help="the process id with which this one ends")
    given = parser.parse_args()
    die_with_parent(given.parent)
    chosen = edition(given.edition, given.home)
    Worker(BASE.resolve(), chosen.home, chosen.results, chosen.scope).work()


if __name__ == "__main__":
    main()
