"""Which test files execute which lines, in their own process and in every process that they start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

PACKAGES = ("trainer", "worker", "store", "api", "intake")
LONGEST_TEST_FILE_SECONDS = 900.0
COVERAGE_SETTINGS = """\
[run]
data_file = {folder}/data
parallel = true
patch = subprocess, _exit, fork
sigterm = true
source_pkgs = {packages}
disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse
core = ctrace
"""


@dataclass(frozen=True)
class Executed:
    """Of one test file: whether it passes, its wall-clock seconds, and the lines that it executes by source file."""

    passes: bool
    seconds: float
    lines: Mapping[str, frozenset[int]]


def executed_by(root: Path, tests: Iterable[str], folder: Path, *, processes: int) -> dict[str, Executed]:
    """Measure each test file that is not in ``folder`` yet, which remembers them by name; returns all of them."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(test: str) -> Executed:
        kept = folder / (test.replace("/", "--") + ".json")
        if not kept.exists():
            kept.write_text(json.dumps(_measure(root, test, folder)))
        found = json.loads(kept.read_text())
        return Executed(
            found["passes"], found["seconds"], {path: frozenset(lines) for path, lines in found["lines"].items()}
        )

    tests = list(tests)
    with ThreadPoolExecutor(processes) as pool:
        return dict(zip(tests, pool.map(one, tests), strict=True))


def _measure(root: Path, test: str, folder: Path) -> dict[str, object]:
    own = folder / test.replace("/", "--").removesuffix(".py")
    own.mkdir(exist_ok=True)
    settings = own / "coveragerc"
    settings.write_text(COVERAGE_SETTINGS.format(folder=own, packages=", ".join(PACKAGES)))
    command = [sys.executable, "-m", "coverage", "run", "--rcfile", str(settings), "-m", "pytest", "-n0", test]
    began = time.monotonic()
    with (own / "log").open("wb") as log:
        try:
            code = subprocess.run(
                command,
                cwd=root,
                env=environment(root),
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=LONGEST_TEST_FILE_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            code = 1
    lines: dict[str, set[int]] = {}
    for path in own.glob("data.*"):
        data = CoverageData(str(path))
        data.read()
        for source in data.measured_files():
            if Path(source).is_relative_to(root):
                lines.setdefault(str(Path(source).relative_to(root)), set()).update(data.lines(source) or ())
        path.unlink()
    return {
        "passes": code == 0,
        "seconds": time.monotonic() - began,
        "lines": {source: sorted(numbers) for source, numbers in sorted(lines.items())},
    }


def environment(root: Path) -> dict[str, str]:
    """Tests and all that they start import the product from ``root``, and torch takes one thread."""
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
