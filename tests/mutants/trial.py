"""One mutant at a time in a copy of the tree: write it, run the tests that execute its line, put the line back.

Processes are forked from one that has imported the large libraries already, so that a trial of pure code takes a second
or two instead of ten. The product itself is imported in the fork alone, since it is what changes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.executed import Executed, environment
from tests.mutants.mutations import Mutant

BUDGET_SECONDS = 600.0  # of test files, by what they took unmutated; the nearest and the shortest come first
GRACE = 3.0  # how many times longer than unmutated tests may take, beside the start
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PASSED, BROKEN = 0, 70
# Plugins that a preloaded library has imported already cannot be rewritten, and need not be.
OPTIONS = ("-x", "-n0", "--no-header", "--tb=line", "--durations=0", "-W", "ignore::pytest.PytestAssertRewriteWarning")
PRELOADED = (
    "numpy",
    "PIL.Image",
    "pydantic",
    "sqlalchemy",
    "alembic",
    "celery",
    "fastapi",
    "httpx",
    "psycopg",
    "pyarrow",
)
PRELOADED_BY_TRAINER = ("torch", "transformers", "diffusers", "peft", "accelerate")


@dataclass(frozen=True)
class Outcome:
    """``verdict``: killed (by a failing test), timeout, survived, or unexecuted (no test runs the line)."""

    verdict: str
    killed_by: str
    tests: tuple[str, ...]
    seconds: float


def tests_for(mutant: Mutant, executed: Mapping[str, Executed], last_line: int) -> list[str]:
    """Test files that pass and execute the changed lines: those named for the file first, then by their seconds."""
    lines = frozenset(range(mutant.line, last_line + 1))
    stem = Path(mutant.path).stem
    found = [name for name, of in executed.items() if of.passes and lines & of.lines.get(mutant.path, frozenset())]
    found.sort(key=lambda name: (stem not in name, executed[name].seconds))
    chosen: list[str] = []
    for name in found:
        if not chosen or sum(executed[one].seconds for one in [*chosen, name]) <= BUDGET_SECONDS:
            chosen.append(name)
    return chosen


def try_out(mutant: Mutant, copy: Path, executed: Mapping[str, Executed], scratch: Path) -> Outcome:
    """``copy`` is a tree that this process has to itself."""
    path = copy / mutant.path
    source = path.read_bytes()
    last_line = mutant.line + mutant.before.count("\n")
    tests = tests_for(mutant, executed, last_line)
    if not tests:
        return Outcome("unexecuted", "", (), 0.0)
    allowed = START_SECONDS + GRACE * sum(executed[name].seconds for name in tests)
    began = time.monotonic()
    path.write_bytes(mutant.apply(source))
    try:
        code, output = run_tests(tests, copy, scratch, allowed)
    finally:
        path.write_bytes(source)
    seconds = time.monotonic() - began
    if code is None:
        return Outcome("timeout", "", tuple(tests), seconds)
    if code == BROKEN:
        raise RuntimeError(f"pytest could not be started for {mutant.id}:\n{output}")
    if code == PASSED:
        return Outcome("survived", "", tuple(tests), seconds)
    return Outcome("killed", first_failure(output), tuple(tests), seconds)


def run_tests(tests: Sequence[str], copy: Path, scratch: Path, allowed: float) -> tuple[int | None, str]:
    """pytest's exit code, None where it took longer than ``allowed`` seconds, and what it printed."""
    scratch.mkdir(parents=True, exist_ok=True)
    output = scratch / "output"
    child = os.fork()
    if child == 0:
        _become_pytest(tests, copy, output)
    code = _wait(child, allowed)
    _end_group(child)
    return code, output.read_text(errors="replace") if output.exists() else ""


def _become_pytest(tests: Sequence[str], copy: Path, output: Path) -> None:
    """Never returns. A process group of its own, so that a trial's servers end with it."""
    code = BROKEN
    try:
        os.setsid()
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(copy)
        os.environ.update(environment(copy))
        sys.path[:] = [str(copy), *(entry for entry in sys.path if Path(entry or ".").resolve() != Path.cwd())]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "api", "store")]:
            del sys.modules[name]
        import pytest

        code = int(pytest.main([*OPTIONS, *tests]))
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int, allowed: float) -> int | None:
    end = time.monotonic() + allowed
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGINT)  # pytest stops the servers that it started
    if not _ended(child, STOP_SECONDS):
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return None


def _ended(child: int, allowed: float) -> bool:
    end = time.monotonic() + allowed
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.05)
    return False


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def first_failure(output: str) -> str:
    """The name of the first test that failed, or of the file that could not be collected."""
    for line in output.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" ", 1)[1].split(" - ")[0]
    return "pytest itself"


def preload(package: str) -> None:
    for name in PRELOADED + (PRELOADED_BY_TRAINER if package == "trainer" else ()):
        __import__(name)


def copied(root: Path, copy: Path) -> Path:
    """The tree's files as they are now, tracked or new."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True,
    ).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((root / name).read_bytes())
            (copy / name).chmod((root / name).stat().st_mode)
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)  # some tests ask git what the tree holds
    return copy
