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

from trainer.spec.events import Event, parse_event

ROOT = Path(__file__).parents[2]


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
) -> Outcome:
    """Run to the end, or send ``stop_with`` at the first event for which ``stop_at`` is true."""
    outcome = Outcome()
    with _process(directory, cache) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = parse_event(line)
            outcome.events.append(event)
            if stop_with is not None and stop_at(event):
                process.send_signal(stop_with)
                stop_with = None
    outcome.returncode = process.returncode
    outcome.stderr = (directory / "stderr.txt").read_text()
    return outcome


@contextmanager
def _process(directory: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "trainer", "run", str(directory), "--cache", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        (directory / "stderr.txt").open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT, env=environment
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            process.kill()
            raise
