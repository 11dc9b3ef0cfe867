"""Looking at jobs and processes from outside until something is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
from sqlalchemy import func, select

from store.database import Sessions
from store.tables.job import Checkpoint, Job
from tests.api.polling import until
from tests.store.rows import read_events, read_job

Found = TypeVar("Found")
PATIENCE = 90.0  # seconds; a trainer imports torch first, on a machine that may be busy


def status_becomes(sessions: Sessions, job_id: str, status: str, *, seconds: float = PATIENCE) -> Job:
    until(lambda: read_job(sessions, job_id).status == status, seconds=seconds)
    return read_job(sessions, job_id)


def first_checkpoint(sessions: Sessions, job_id: str) -> int:
    """Wait for a checkpoint to be visible; its step."""

    def newest() -> int | None:
        with sessions() as session:
            return session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job_id))

    return found(newest)


def found(look: Callable[[], Found | None], *, seconds: float = PATIENCE) -> Found:
    results: list[Found] = []

    def holds() -> bool:
        results.extend(result for result in [look()] if result is not None)
        return bool(results)

    until(holds, seconds=seconds)
    return results[0]


def trainer_of(job_id: str) -> psutil.Process | None:
    """Whoever started it."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "trainer" in command and any(job_id in part for part in command):
            return process
    return None


def resumed_from(sessions: Sessions, job_id: str) -> list[int]:
    """The step from which each attempt's trainer started, in order."""
    data = [event.data or {} for event in read_events(sessions, job_id)]
    return [reported["resumed_from_step"] for reported in data if reported.get("event") == "started"]


def reported(sessions: Sessions, job_id: str) -> list[str]:
    """The names of the trainer's events that the job has reported, in order."""
    data = [event.data or {} for event in read_events(sessions, job_id)]
    return [event["event"] for event in data if "event" in event]


def states(sessions: Sessions, job_id: str) -> list[str]:
    data = [event.data or {} for event in read_events(sessions, job_id)]
    return [reported["status"] for reported in data if "status" in reported]


def attempts_left(home: Path) -> list[Path]:
    return list((home / "work" / "attempts").glob("*"))
