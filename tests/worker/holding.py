"""Trainers that wait where they enter a phase, until they get a request to stop: so that a stop meets every phase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

# Run by the trainer's interpreter before its first line. A phase is held once for each time that it is named.
PROGRAM = """
import pathlib, signal, threading, time
from trainer.runtime import event_stream

folder, stopping, entered = pathlib.Path({folder!r}), threading.Event(), []
handle, enter = signal.signal, event_stream.PhaseReporter.enter

def handle_and_tell(number, handler):
    def on_stop(*given):
        stopping.set()
        handler(*given)
    return handle(number, on_stop if callable(handler) and number == signal.SIGTERM else handler)

def enter_and_wait(phases, name):
    enter(phases, name)
    entered.append(name)
    if (folder / "hold").read_text() == f"{{name}} {{entered.count(name)}}":
        (folder / "held").touch()
        while not stopping.wait(0.01):
            pass

signal.signal, event_stream.PhaseReporter.enter = handle_and_tell, enter_and_wait
"""


@dataclass(frozen=True)
class Holding:
    """``hold`` names a phase and the how manyth time in an attempt."""

    folder: Path

    def hold(self, phase: str) -> None:
        (self.folder / "held").unlink(missing_ok=True)
        (self.folder / "hold").write_text(phase)

    def holds(self) -> bool:
        return (self.folder / "held").exists()


def holding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Holding:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PROGRAM.format(folder=str(folder)))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    made = Holding(folder)
    made.hold("nowhere")
    return made
