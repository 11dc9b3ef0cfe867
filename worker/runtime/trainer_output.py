"""Reading a trainer's events without ever blocking on it."""

from __future__ import annotations

import queue
import subprocess
import threading
from pathlib import Path

import structlog
from pydantic import ValidationError

from trainer.spec.events import Event, parse_event

log = structlog.get_logger()

SHOWN_LINES = 12
SHOWN_BYTES = 8192


class TrainerOutput:
    """A thread parses stdout lines; ``read`` hands over what has arrived."""

    def __init__(self, trainer: subprocess.Popen[bytes]) -> None:
        self._trainer = trainer
        self._arrived: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._pump, name="trainer-output", daemon=True)
        self._thread.start()
        self.ended = False

    def read(self, *, timeout: float) -> list[Event]:
        """The events since the last call; waits up to ``timeout`` seconds for the first. Sets ``ended`` at the end."""
        events: list[Event] = []
        try:
            event = self._arrived.get(timeout=timeout)
            while event is not None:
                events.append(event)
                event = self._arrived.get_nowait()
            self.ended = True
        except queue.Empty:
            pass
        return events

    def close(self) -> None:
        """After the trainer was ended: wait for the thread and close the pipe."""
        self._thread.join()
        if self._trainer.stdout is not None:
            self._trainer.stdout.close()

    def _pump(self) -> None:
        for line in self._trainer.stdout or ():
            try:
                self._arrived.put(parse_event(line))
            except ValidationError:
                log.warning("trainer.unknown_line", line=line[:200].decode(errors="replace"))
        self._arrived.put(None)


def last_lines(path: Path) -> str:
    """The end of a log, for an error message."""
    with path.open("rb") as content:
        size = content.seek(0, 2)
        content.seek(max(0, size - SHOWN_BYTES))
        tail = content.read().decode(errors="replace").replace("\0", "")  # which PostgreSQL's text cannot hold
    return "\n".join(tail.strip().splitlines()[-SHOWN_LINES:])
