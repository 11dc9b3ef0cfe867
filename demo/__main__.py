"""``python -m demo``: the bundled example from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo.emoji import pairs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The bundled OpenMoji example.")
    commands = parser.add_subparsers(dest="command", required=True)

    pairs_command = commands.add_parser("pairs", help="write the example archive of preference pairs")
    pairs_command.add_argument("out", type=Path, metavar="OUT.zip")
    pairs_command.set_defaults(run=lambda arguments: write_pairs(arguments.out))

    run_command = commands.add_parser("run", help="do the main job from end to end, as `make demo`")
    run_command.set_defaults(run=lambda _: run_all())

    arguments = parser.parse_args()
    arguments.run(arguments)


def write_pairs(out: Path) -> None:
    count = pairs.write_archive(out)
    print(f"{out}: {count} pairs, {out.stat().st_size:,} bytes")


def run_all() -> None:
    from demo import run  # here, so that `demo pairs` needs neither the SDK nor the stack

    sys.exit(run.main())


if __name__ == "__main__":
    main()
