"""The dispatcher's loop and its process, apart from what a tick does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from store.settings import REPOSITORY
from worker.dispatcher import housekeeping
from worker.dispatcher.dispatcher import tick_until
from worker.resources import Resources

pytestmark = pytest.mark.integration
NOWHERE = {"DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none", "BROKER_URL": "redis://127.0.0.1:1/0"}


class StopsAfter(threading.Event):
    """Set by its ``rounds``-th wait; no wait takes time."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self._rounds = rounds

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == self._rounds:
            self.set()
        return self.is_set()


def test_ticks_are_as_far_apart_as_the_setting_says(resources: Resources) -> None:
    stop = StopsAfter(3)
    tick_until(stop, resources)
    assert stop.waits == [resources.settings.dispatch_seconds] * 3


@pytest.mark.parametrize(("sweep_seconds", "waited"), [(5.0, 5.0), (6 * 3600.0, 60.0)])
def test_housekeeping_checks_every_minute_whether_a_round_is_due(
    resources: Resources, sweep_seconds: float, waited: float
) -> None:
    stop = StopsAfter(1)
    settings = resources.settings.model_copy(update={"sweep_seconds": sweep_seconds})
    housekeeping.run(replace(resources, settings=settings), stop)
    assert stop.waits == [waited]


def test_a_dispatcher_without_its_services_logs_json_lines_and_ends_when_it_is_stopped(tmp_path: Path) -> None:
    variables = {f"PAIRTUNE_{name}": value for name, value in {**NOWHERE, "HOME": str(tmp_path)}.items()}
    command = [sys.executable, "-m", "worker.dispatcher"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=os.environ | variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        first = json.loads(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert first["event"] == "dispatcher.started"
    assert process.returncode == 0
    assert [json.loads(line)["level"] for line in rest.splitlines()] == ["warning"] * len(rest.splitlines())
