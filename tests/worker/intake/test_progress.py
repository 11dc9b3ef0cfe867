"""How often the progress of reading a file is written, and how often to the events of the jobs that wait for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from intake import Progress
from worker.intake import file_intake
from worker.intake.file_intake import EVENT_SECONDS, PROGRESS_SECONDS, _ProgressReporter

pytestmark = pytest.mark.unit


def test_progress_is_written_seldom_and_to_events_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(file_intake, "time", SimpleNamespace(monotonic=lambda: now))
    checks: list[float] = []
    written: list[tuple[float, bool]] = []
    reported = _ProgressReporter(lambda: checks.append(now), lambda _, to_jobs: written.append((now - 100.0, to_jobs)))
    progress = Progress("pairtune", rows=1, kept=1, total=None)
    period = PROGRESS_SECONDS
    assert 2 * period < EVENT_SECONDS
    steps = [0.0, 0.9 * period, period, 1.1 * period, 2 * period, period + EVENT_SECONDS]
    for at in steps:
        now = 100.0 + at
        reported(progress)
    assert len(checks) == len(steps)
    assert written == [(period, True), (2 * period, False), (period + EVENT_SECONDS, True)]
