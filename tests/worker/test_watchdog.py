"""The progress watchdog: a program that reports lives, however long it runs; one that is silent is killed."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.rows import read_events, running_job
from trainer.spec.events import Phase
from worker.resources import Resources
from worker.runtime import process
from worker.runtime.lease_keeper import LeaseKeeper
from worker.runtime.stop import Stop
from worker.runtime.trainer_output import TrainerOutput
from worker.training.attempt import Attempt
from worker.training.supervisor import _watch

pytestmark = pytest.mark.integration
WORD = Phase(phase="training", previous="caching", seconds=1.0).model_dump_json()
STALL_SECONDS = 2.0


def watched(resources: Resources, project_id: str, folder: Path, program: str) -> tuple[float | None, int]:
    """For how long the program was silent when the watchdog killed it, and its exit code."""
    short = replace(resources, settings=resources.settings.model_copy(update={"stall_seconds": STALL_SECONDS}))
    owned = running_job(resources.sessions, project_id)
    keeper = LeaseKeeper(lambda: None, claimed_at=time.monotonic(), lease_seconds=600, heartbeat_seconds=60)
    with (folder / "stderr.log").open("wb") as stderr:
        child = process.start([sys.executable, "-S", "-c", program], cwd=folder, stderr=stderr)
    output, stop = TrainerOutput(child), Stop(child, grace_seconds=30)
    try:
        stalled = _watch(short, Attempt(owned, folder), output, keeper, stop, lambda: False)
        child.wait(10)
    finally:
        process.end_group(child)
        output.close()
    reported = [event.message for event in read_events(resources.sessions, owned.job_id)]
    assert "Training." in reported
    return stalled, child.returncode


def test_a_program_that_keeps_reporting_outlives_the_watchdogs_time(
    resources: Resources, project_id: str, tmp_path: Path
) -> None:
    program = f"import time\nfor _ in range(30):\n print({WORD!r}, flush=True)\n time.sleep(0.15)"
    started = time.monotonic()
    assert watched(resources, project_id, tmp_path, program) == (None, 0)
    assert time.monotonic() - started > 2 * STALL_SECONDS


def test_a_program_that_falls_silent_is_killed(resources: Resources, project_id: str, tmp_path: Path) -> None:
    program = f"import time\nprint({WORD!r}, flush=True)\ntime.sleep(600)"
    stalled, exit_code = watched(resources, project_id, tmp_path, program)
    assert stalled is not None
    assert STALL_SECONDS < stalled < 60
    assert exit_code == -9


def test_what_is_no_event_is_passed_over_and_keeps_nobody_alive(
    resources: Resources, project_id: str, tmp_path: Path
) -> None:
    """A torn line, a word of a library, an event of a later version: none of them ends the reading."""
    lines = [WORD[:20], "Loading checkpoint shards: 100%", '{"event": "invented"}', "\\xff", WORD]
    program = (
        f"import time\nfor line in {lines!r}:\n print(line, flush=True)\n"
        "while True:\n print('x', flush=True)\n time.sleep(0.1)"
    )
    stalled, exit_code = watched(resources, project_id, tmp_path, program)
    assert stalled is not None
    assert exit_code == -9
