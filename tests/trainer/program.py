"""Running the real training program and reading what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.trainer.warm import ROOT, Forked, server
from trainer.spec.events import Event, parse_event


@dataclass
class Outcome:
    """``returncode`` is -9 after SIGKILL."""

    events: list[Event] = field(default_factory=list)
    returncode: int = 0
    stderr: str = ""


def run_program(
    directory: Path,
    cache: Path,
    *,
    stop_with: signal.Signals | None = None,
    stop_at: Callable[[Event], bool] = lambda _: False,
    kill_at: int | None = None,
    fresh: bool = False,
    code: Path = ROOT,
) -> Outcome:
    """Run to the end, or send ``stop_with`` at the first event for which ``stop_at`` is true.

    ``fresh``: as a user starts it; else forked where its imports are done, which is seconds sooner
    (tests/trainer/warm.py; ``kill_at`` is of that). ``code`` has the trainer's package, if it is to be another one.
    """
    outcome = Outcome()
    arguments = ["run", str(directory), "--cache", str(cache)]
    errors = directory / "stderr.txt"
    own = fresh or code != ROOT
    with (
        _process(arguments, errors, code)
        if own
        else server().run(*arguments, stderr=errors, kill_at=kill_at) as process
    ):
        assert process.stdout is not None
        for line in process.stdout:
            event = parse_event(line)
            outcome.events.append(event)
            if stop_with is not None and stop_at(event):
                process.send_signal(stop_with)
                stop_with = None
    outcome.returncode = process.returncode
    outcome.stderr = errors.read_text()
    return outcome


@contextmanager
def _process(arguments: list[str], errors: Path, code: Path) -> Iterator[subprocess.Popen[str] | Forked]:
    command = [sys.executable, "-m", "trainer", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=code, env=environment
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            process.kill()
            raise
