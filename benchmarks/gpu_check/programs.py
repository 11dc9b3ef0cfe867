"""Start the programs of the check, each with a deadline, and collect what they report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.spec.events import EXIT_DONE, Event, Failed, MemoryPlanned, Progress, Warned, parse_event

ROOT = Path(__file__).parents[2]
LAST_LINES = 5  # of stderr, to tell how a program ended


@dataclass
class Finished:
    """``returncode`` is None for a program that was stopped at its deadline; ``lines`` are stdout's, timed."""

    returncode: int | None = None
    seconds: float = 0.0
    lines: list[tuple[float, str]] = field(default_factory=list)
    stderr: str = ""

    @property
    def late(self) -> bool:
        return self.returncode is None

    def result(self) -> dict[str, Any]:
        """Of a program that prints JSON in its last line."""
        found: dict[str, Any] = json.loads(self.lines[-1][1])
        return found

    def end(self) -> str:
        """How it ended, if not well."""
        if self.late:
            return f"stopped after {self.seconds:.0f} s: the time for this section was over"
        last = " ".join(self.stderr.strip().splitlines()[-LAST_LINES:])
        return f"exit code {self.returncode}: {last[-500:]}"


@dataclass
class Trained(Finished):
    """A finished trainer; ``peaks`` has a list a process, as ``benchmarks.gpu_check.limited`` writes it."""

    events: list[tuple[float, Event]] = field(default_factory=list)
    peaks: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.returncode == EXIT_DONE

    def end(self) -> str:
        failures = [event for _, event in self.events if isinstance(event, Failed)]
        return f"{failures[-1].code}: {failures[-1].message}" if failures else super().end()

    def plans(self) -> list[tuple[float, MemoryPlanned]]:
        return [(at, event) for at, event in self.events if isinstance(event, MemoryPlanned)]

    def warnings(self) -> list[str]:
        return [event.code for _, event in self.events if isinstance(event, Warned)]

    def measured(self) -> dict[str, Any]:
        """The plan, the peak of what torch had reserved and allocated from the plan on in GiB, and the speed."""
        found: dict[str, Any] = {"seconds": round(self.seconds, 1)}
        planned = self.plans()
        if planned:
            since, plan = planned[-1]
            names = [name for name in ("gradient_checkpointing", "streamed") if getattr(plan, name)]
            found["plan"] = ", ".join([f"{plan.batch_size} of {plan.effective_batch_size} pairs", *names])
            training = [peak for peaks in self.peaks for peak in peaks if peak["time"] > since]
            for kind in ("reserved", "allocated"):
                if training:
                    found[f"{kind}_gib"] = max(peak[kind] for peak in training) / 2**30
        speeds = [event.pairs_per_second for _, event in self.events if isinstance(event, Progress)]
        if speeds:
            found["pairs_per_second"] = speeds[-1]
        return found


def run_module(module: str, *arguments: str, deadline: float) -> Finished:
    finished = Finished()
    run([sys.executable, "-m", module, *arguments], finished, deadline)
    return finished


def run_trainer(
    directory: Path,
    cache: Path,
    *,
    deadline: float,
    memory_bytes: int | None = None,
    stop_at: Callable[[Event], bool] = lambda _: False,
    launcher: Sequence[str] = (),
) -> Trained:
    """``python -m trainer run``; SIGTERM is sent at the first event for which ``stop_at`` is true."""
    trained, stopped = Trained(), False
    peaks = directory / "peaks"
    limit = [] if memory_bytes is None else ["--memory-bytes", str(memory_bytes)]
    command = [sys.executable, *launcher, "-m", "benchmarks.gpu_check.limited", *limit, "--peaks", str(peaks)]

    def read(line: str, process: subprocess.Popen[str]) -> None:
        nonlocal stopped
        event = parse_event(line)
        trained.events.append((time.time(), event))
        if not stopped and stop_at(event):
            stopped = True
            process.send_signal(signal.SIGTERM)

    run([*command, "run", str(directory), "--cache", str(cache)], trained, deadline, read)
    for path in sorted(directory.glob("peaks.*")):
        trained.peaks.append(json.loads(path.read_text(encoding="utf-8")))
    return trained


def run(
    command: Sequence[str],
    finished: Finished,
    deadline: float,
    read: Callable[[str, subprocess.Popen[str]], None] = lambda _line, _process: None,
) -> None:
    """Runs ``command`` to its end, or kills it and all that it started at ``deadline``, a monotonic time."""
    started, errors = time.monotonic(), list[str]()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            kill_group(process)

        timer = threading.Timer(max(0.0, deadline - started), stop)
        drain = threading.Thread(target=lambda: errors.extend(process.stderr or []))
        timer.start()
        drain.start()
        try:
            for line in process.stdout:
                finished.lines.append((time.time(), line))
                read(line, process)
            process.wait()
        except BaseException:
            kill_group(process)
            raise
        finally:
            timer.cancel()
            drain.join()
    finished.seconds = time.monotonic() - started
    finished.returncode = None if overdue.is_set() else process.returncode
    finished.stderr = "".join(errors)


def kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.killpg(process.pid, signal.SIGKILL)


def environment() -> dict[str, str]:
    """torch reads how to allocate when it is imported; the trainer sets the same for itself."""
    if "PYTORCH_CUDA_ALLOC_CONF" in os.environ:
        return dict(os.environ)
    return {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ}
