"""What becomes of a job that runs when everything stops: by Ctrl-C, and killed at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy.exc import OperationalError

from cli.local.embedded import running_postgres
from store.database import Sessions, open_engine, open_sessions
from store.tables.job import Checkpoint, Job, JobEvent
from tests.api import polling
from tests.cli.commands.test_up import home, run
from tests.cli.home import READY, Home, gone, running
from tests.cli.test_commands import Run
from tests.trainer.tiny_sdxl import save_base
from tests.worker.pairs import archive_of

__all__ = ["home", "run"]  # fixtures
pytestmark = pytest.mark.integration
SOON = {"LEASE": "6", "HEARTBEAT": "1", "DISPATCH": "0.5", "REPUBLISH": "2"}  # seconds
VARIABLES = {f"PAIRTUNE_{name}_SECONDS": seconds for name, seconds in SOON.items()} | {"OMP_NUM_THREADS": "1"}
STEPS = 80
REQUESTED = (
    "preset=style",
    "batch_size=2",
    f"max_steps={STEPS}",
    f"checkpoints.every_steps={STEPS}",
    "validation.draws=1",
)


def family(home: Home, up: psutil.Popen) -> list[psutil.Process]:
    postmaster = home.postmaster()
    assert postmaster is not None
    return [up, *up.children(recursive=True), postmaster, *postmaster.children()]


class Watched:
    """The job as the home's database has it, which answers before the API does."""

    def __init__(self, sessions: Sessions, job_id: str) -> None:
        self._sessions, self._job_id = sessions, job_id

    def step(self) -> int:
        """The last one reported; 0 when the job does not run, or PostgreSQL is away. Fails if the job has ended."""
        try:
            job = self.job()
        except OperationalError:
            return 0
        assert job.status in ("validating_files", "queued", "running"), job.error
        return int((job.progress or {}).get("step", 0)) if job.status == "running" else 0

    def job(self) -> Job:
        with self._sessions() as session:
            return session.get_one(Job, self._job_id)

    def checkpoints(self) -> list[int]:
        with self._sessions() as session:
            return [one.step for one in session.query(Checkpoint).filter_by(job_id=self._job_id)]

    def messages(self) -> list[str]:
        with self._sessions() as session:
            events = session.query(JobEvent).filter_by(job_id=self._job_id).order_by(JobEvent.sequence)
            return [event.message for event in events]


@contextmanager
def database_of(home: Home) -> Iterator[Sessions]:
    url = running_postgres(home.path)
    assert url is not None
    engine = open_engine(url, pool_size=1)
    try:
        yield open_sessions(engine)
    finally:
        engine.dispose()


def until(holds: Callable[[], bool], home: Home, *, seconds: float = READY) -> None:
    """Tells what the latest `up` printed if it ends first."""
    polling.until(lambda: holds() or home.started[-1].poll() is not None, seconds=seconds)
    assert home.started[-1].poll() is None, home.printed(len(home.started) - 1)


def test_a_running_job_outlives_ctrl_c_and_the_death_of_everything(home: Home, run: Run, tmp_path: Path) -> None:
    save_base(home.path / "tiny")
    archive = tmp_path / "pairs.zip"
    archive.write_bytes(archive_of(rejected=True))

    first = home.up_and_ready(**VARIABLES)
    changes = [text for change in REQUESTED for text in ("--set", change)]
    started = run("train", archive, "--base", "tiny", *changes, "--json")
    assert started.exit_code == 0, started.output
    with database_of(home) as sessions:
        outlives(home, first, Watched(sessions, json.loads(started.stdout)["id"]))


def outlives(home: Home, first: psutil.Popen, job: Watched) -> None:
    until(lambda: job.step() > 0, home)
    alive = family(home, first)
    assert any("trainer" in part for one in running(alive) for part in one.cmdline())
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 0
    assert running(alive) == []

    second = home.up(**VARIABLES)
    until(lambda: job.step() > 0, home)  # where it had been
    [stopped_at] = job.checkpoints()
    assert 0 < stopped_at < STEPS
    until(lambda: job.step() > stopped_at, home)
    assert job.job().crashes == 0
    alive = family(home, second)
    for one in alive:  # at once: none has the time to notice that another one is gone
        one.suspend()
    for one in alive:
        one.kill()
    second.wait()
    polling.until(gone(alive))
    # As after the machine's own end, when another process may have the number.
    postmaster_file = home.path / "postgres" / "postmaster.pid"
    lines = postmaster_file.read_text().splitlines()
    postmaster_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    home.up(**VARIABLES)
    until(lambda: job.step() > stopped_at, home)
    until(lambda: job.job().status == "succeeded", home)
    assert job.checkpoints() == [STEPS]  # the save of the stop went when this one stood
    assert job.job().attempt == 3
    resumed = [message for message in job.messages() if f"going on from step {stopped_at}:" in message]
    assert len(resumed) == 2
