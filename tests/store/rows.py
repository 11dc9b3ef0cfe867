"""Files and jobs as the API makes them, and claims as workers make them."""

from __future__ import annotations

from typing import Any

from store.database import Sessions
from store.files import files
from store.files.files import NewFile
from store.generations import generations
from store.generations.generations import NewGeneration
from store.jobs import job_leases, jobs
from store.jobs.job_leases import JobLease
from store.jobs.jobs import NewJob
from store.tables.file import File
from store.tables.generation import Generation
from store.tables.job import Job, JobEvent
from store.tables.project import ApiKey

SPEC: dict[str, Any] = {
    "base": {"name": "tiny", "family": "sdxl", "source": "/tiny"},
    "method": {"type": "mapo"},
}


def add_file(sessions: Sessions, project_id: str, *, status: str = "processed") -> File:
    with sessions.begin() as session:
        return files.create(session, NewFile(project_id, "pairs.zip", "fine-tune", 3, "0" * 64), status=status)


def add_job(
    sessions: Sessions, training_file: File, validation_file: File | None = None, *, spec: dict[str, Any] = SPEC
) -> str:
    new = NewJob(
        project_id=training_file.project_id,
        spec=spec,
        training_file=training_file,
        validation_file=validation_file,
        attributes={"suffix": "test"},
    )
    with sessions.begin() as session:
        return jobs.create(session, new).id


def queued_job(sessions: Sessions, project_id: str) -> str:
    return add_job(sessions, add_file(sessions, project_id))


def claim(sessions: Sessions, job_id: str, *, lease_seconds: float = 60) -> JobLease:
    with sessions.begin() as session:
        owned = job_leases.claim(session, job_id, worker="w1", lease_seconds=lease_seconds)
    assert owned is not None
    return owned


def running_job(sessions: Sessions, project_id: str, *, lease_seconds: float = 60) -> JobLease:
    return claim(sessions, queued_job(sessions, project_id), lease_seconds=lease_seconds)


def read_job(sessions: Sessions, job_id: str) -> Job:
    with sessions() as session:
        return session.get_one(Job, job_id)


def read_events(sessions: Sessions, job_id: str) -> list[JobEvent]:
    """Oldest first."""
    with sessions() as session:
        return list(session.query(JobEvent).filter_by(job_id=job_id).order_by(JobEvent.sequence))


def add_generation(
    sessions: Sessions, project_id: str, *, files: dict[str, str] | None = None, **requested: Any
) -> str:
    """Queued images of the tiny base, by the project's first key; ``files`` are the adapter's."""
    spec = {"base": SPEC["base"], "prompt": "a cat", "seed": 3, "steps": 2} | requested
    with sessions.begin() as session:
        key = session.query(ApiKey).filter_by(project_id=project_id).first()
        assert key is not None
        new = NewGeneration(project_id, "tiny", spec, files or {}, key.id, "0" * 64)
        return generations.create(session, new).id


def read_generation(sessions: Sessions, generation_id: str) -> Generation:
    with sessions() as session:
        return session.get_one(Generation, generation_id)
