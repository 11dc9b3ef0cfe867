"""A claim that the database answers late: the lease counts from the question, so the worker begins nothing on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from store.tables.project import Project
from tests.api.polling import until
from tests.store.rows import add_generation, read_generation, read_job
from tests.worker.conftest import NewJob, reread, upload
from worker.generation.generation import generate
from worker.intake.file_intake import read_file
from worker.resources import Resources
from worker.runtime.lease_keeper import TRUSTED_PART
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration
LEASE_SECONDS = 2.0


@pytest.fixture
def brief(resources: Resources) -> Resources:
    """With a short lease that is not renewed in time, and a quota, which makes a claim wait for its project's row."""
    quotas = {"quota_running_jobs": 1, "quota_running_files": 1, "quota_running_images": 1}
    changes = {"lease_seconds": LEASE_SECONDS, "heartbeat_seconds": 60.0, **quotas}
    return replace(resources, settings=resources.settings.model_copy(update=changes))


def answered_late(resources: Resources, project_id: str, work: Callable[[], None]) -> None:
    """``work`` waits for its project's row for longer than a lease can be trusted."""
    with ThreadPoolExecutor(1) as pool:
        with resources.sessions.begin() as holding:
            holding.execute(select(Project.id).where(Project.id == project_id).with_for_update())
            working = pool.submit(work)
            until(lambda: _waits(holding))
            holding.execute(select(func.pg_sleep(LEASE_SECONDS * TRUSTED_PART + 0.1)))
        working.result(60)


def _waits(session: Session) -> bool:
    return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_no_trainer_starts_on_a_claim_that_was_answered_too_late(
    brief: Resources, project_id: str, new_job: NewJob
) -> None:
    job_id = new_job()
    answered_late(brief, project_id, lambda: supervise(brief, job_id, stopping=lambda: True))
    job = read_job(brief.sessions, job_id)
    assert (job.status, job.attempt) == ("running", 1)  # not given back: the dispatcher takes it


def test_no_file_is_read_on_a_claim_that_was_answered_too_late(
    brief: Resources, project_id: str, archive: bytes
) -> None:
    file = upload(brief, project_id, archive)
    answered_late(brief, project_id, lambda: read_file(brief, file.id))
    row = reread(brief, file)
    assert (row.status, row.attempt) == ("uploaded", 1)
    assert row.lease_expires_at is not None


def test_no_images_are_generated_on_a_claim_that_was_answered_too_late(brief: Resources, project_id: str) -> None:
    generation_id = add_generation(brief.sessions, project_id)
    answered_late(brief, project_id, lambda: generate(brief, generation_id, stopping=lambda: True))
    row = read_generation(brief.sessions, generation_id)
    assert (row.status, row.attempt) == ("running", 1)
