"""What whoever watches a job sees: a bar on a terminal of any width, and in a pipe the events alone, line by line."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import psutil
import pytest
from rich.console import Console

from cli.client.watching import Shown, progress_bar
from store.jobs import job_leases
from store.jobs.events import NewEvent
from store.settings import REPOSITORY
from tests.api.polling import until
from tests.api.serving import Live
from tests.cli.test_commands import PROGRESS, Run, claim, file_id, run, started

__all__ = ["file_id", "run"]  # fixtures
SEEN = {
    "phase": {"event": "phase", "phase": "training"},
    "metrics": {"event": "metrics", "implicit_accuracy": 0.81},
    "progress": {
        "event": "progress", "step": 120, "max_steps": 300, "loss": 0.1234, "margin": 0.021,
        "pairs_per_second": 26.4, "eta_seconds": 41.2,
    },
}  # fmt: skip
LINE = "120/300  loss 0.1234  margin +0.0210  accuracy 0.81  26 pairs/s  0:41 left"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def terminal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an ordinary terminal, whatever the tests run in."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def watched(console: Console) -> None:
    with progress_bar(console) as bar:
        shown = Shown(bar, bar.add_task("", total=None, phase="waiting"))
        for kind in ("phase", "metrics", "progress"):
            shown.show({"message": f"Of {kind}.", "data": SEEN[kind]})
        shown.show({"message": "News [of] any kind.", "data": None})
        bar.refresh()


@pytest.mark.unit
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_bar_cuts_none_of_its_numbers_on_a_terminal_of_any_width(width: int) -> None:
    written = io.StringIO()
    watched(Console(file=written, force_terminal=True, width=width, color_system=None))
    last = ESCAPE.sub("", written.getvalue()).split("\r")[-2]  # after it the bar is wiped away
    assert "training ━" in last
    words = last.split()
    assert [word for word in words if word in LINE.split()] == LINE.split()
    assert max(map(len, last.splitlines())) <= width
    assert "\x1b[2K" in written.getvalue().splitlines()[-1]


@pytest.mark.unit
def test_what_is_no_terminal_shows_events_alone() -> None:
    written = io.StringIO()
    watched(Console(file=written, width=80))
    assert written.getvalue().splitlines() == ["  Of metrics.", "  News [of] any kind."]


@pytest.mark.integration
@pytest.mark.parametrize("terminal", [True, False])
def test_watch_shows_its_bar_while_the_job_runs_if_there_is_a_terminal(
    run: Run, live: Live, file_id: str, terminal: bool
) -> None:
    job_id = str(started(run, file_id)["id"])
    owned = claim(live, job_id)
    news = [NewEvent("Step 5/10.", type="metrics", data=PROGRESS), NewEvent("A sample was written.")]
    with live.sessions.begin() as session:
        job_leases.record(session, owned, news, progress=PROGRESS)
    watching = Watching(job_id, terminal)
    until(lambda: "A sample was written." in watching.text, seconds=60)
    if terminal:
        until(lambda: "5/10  loss 0.2500  margin +0.0100" in watching.text)
    with live.sessions.begin() as session:
        job_leases.succeed(session, owned, results=[])
    assert watching.process.wait(60) == 0
    until(lambda: f"`pairtune download {job_id}` fetches it." in watching.text)
    assert (
        ("━" in watching.text) is ("\x1b" in watching.text) is ("\r" in watching.text.replace("\r\n", "")) is terminal
    )
    watching.close()


class Watching:
    """`pairtune watch` as a process, before a terminal of 100 columns or a pipe."""

    def __init__(self, job_id: str, terminal: bool) -> None:
        self._reading, writing = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = psutil.Popen(
            [sys.executable, "-m", "cli.main", "watch", job_id],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
        )
        os.close(writing)
        os.set_blocking(self._reading, False)
        self._read = b""

    @property
    def text(self) -> str:
        """All that was written until now."""
        try:
            while more := os.read(self._reading, 65536):
                self._read += more
        except OSError:  # nothing more yet, or whoever wrote to the terminal has ended
            pass
        return self._read.decode(errors="replace")

    def close(self) -> None:
        os.close(self._reading)
