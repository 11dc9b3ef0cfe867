"""``python -m demo.benchmark.worker [--quick]``: one of the processes that run trials."""

from __future__ import annotations

import argparse

from demo.benchmark.__main__ import BASE, HOME, KEPT, QUICK, QUICK_HOME
from demo.benchmark.plan import WHOLE
from demo.benchmark.trial import Results
from demo.benchmark.work import Worker


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    if parser.parse_args().quick:
        Worker(BASE.resolve(), QUICK_HOME, Results(QUICK_HOME / "results"), QUICK).work()
    else:
        Worker(BASE.resolve(), HOME, KEPT, WHOLE).work()


if __name__ == "__main__":
    main()
