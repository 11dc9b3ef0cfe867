"""Report events to the supervisor as JSON lines on stdout, and keep everything else off it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, Phase, PhaseName, PhaseProgress

Report = Callable[[Event], None]


def claim_stdout() -> Report:
    """Keep stdout for events: whatever else writes to it, C code included, lands on stderr from now on."""
    sys.stdout.flush()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(event: Event) -> None:
        lines.write(event.model_dump_json() + "\n")
        lines.flush()

    return report


@dataclass
class PhaseReporter:
    """Which phase the run is in and since when."""

    report: Report
    current: PhaseName | None = None
    _since: float = field(default_factory=time.monotonic)
    _last_line: float = 0.0
    _counts: tuple[int, int] | None = None

    def enter(self, phase: PhaseName) -> None:
        now = time.monotonic()
        self.report(Phase(phase=phase, previous=self.current, seconds=now - self._since))
        self.current, self._since, self._last_line, self._counts = phase, now, now, None

    def progress(self, done: int, total: int) -> None:
        """Report about once a second, which distinguishes a long phase from a hanging one."""
        now, self._counts = time.monotonic(), (done, total)
        if self.current is not None and now - self._last_line >= 1:
            self.report(PhaseProgress(phase=self.current, done=done, total=total))
            self._last_line = now

    def heartbeat(self) -> None:
        """Within a piece of what ``progress`` counts: the same line again, where the last one is a second old."""
        if self._counts is not None:
            self.progress(*self._counts)


def heartbeat_check(phases: PhaseReporter, stop: StopRequest) -> Callable[[], None]:
    """A check for long work to call between its pieces: it reports a heartbeat, and raises Interrupted once a stop is
    requested."""

    def check() -> None:
        stop.check()
        phases.heartbeat()

    return check


def download_progress(phases: PhaseReporter, stop: StopRequest) -> Callable[[int, int], None]:
    """For a download to call whenever it has received something: it reports how much is here, and raises Interrupted
    once a stop is requested."""

    def progress(done: int, total: int) -> None:
        stop.check()
        phases.progress(done, total)

    return progress
