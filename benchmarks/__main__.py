"""``make bench``: every benchmark in turn, each in a process of its own, and one table of their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = ("trainer_step",)


def main() -> int:
    codes = [
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode for name in BENCHMARKS
    ]
    table = Table("figure", "ratio", "quartiles", "must reach", "device")
    for name in BENCHMARKS:
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        quartiles = " - ".join(f"{value:.3f}" for value in result["quartiles"])
        device = f"{result['device']}, {result['threads']} threads"
        table.add_row(result["figure"], f"{result['ratio']:.3f}", quartiles, f"<= {result['must_reach']}", device)
    Console().print(table)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
