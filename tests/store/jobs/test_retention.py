"""Which checkpoints keep their files: the latest and the best of a job that runs, none of one that failed long ago."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from store.database import Sessions
from store.job_status import JobStatus
from store.jobs import job_leases, jobs, retention
from store.jobs.job_leases import JobLease
from store.tables.job import Checkpoint
from tests.store.rows import running_job

pytestmark = pytest.mark.integration


def checkpoint(sessions: Sessions, lease: JobLease, step: int, loss: float | None, *, kept: int = 2) -> None:
    metrics = {"step": step} | ({"valid_loss": loss} if loss is not None else {})
    manifest = {"adapter": {"sha256": f"{step:064}", "bytes": 10}}
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, lease, step=step, metrics=metrics, manifest=manifest, kept=kept)


def stored(sessions: Sessions, lease: JobLease) -> dict[int, int]:
    """The bytes of each step that has files."""
    with sessions() as session:
        rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == lease.job_id).order_by(Checkpoint.step))
        return {row.step: row.bytes for row in rows if row.manifest}


def test_a_run_with_a_checkpoint_a_step_stores_the_latest_and_the_best(sessions: Sessions, project_id: str) -> None:
    lease, other = running_job(sessions, project_id), running_job(sessions, project_id)
    checkpoint(sessions, other, 1, 9.0)
    for step, loss in enumerate((3.0, 1.0, 2.0, 2.5, 10.0), 1):
        checkpoint(sessions, lease, step, loss)
    assert stored(sessions, lease) == {2: 10, 4: 10, 5: 10}
    checkpoint(sessions, lease, 6, 0.5)
    assert stored(sessions, lease) == {5: 10, 6: 10}
    assert stored(sessions, other) == {1: 10}
    with sessions() as session:
        listed = jobs.checkpoints(session, lease.job_id, after=None, limit=100)
        assert [row.step for row in listed] == [6, 5, 4, 3, 2, 1]
        latest = job_leases.latest_checkpoint(session, lease.job_id)
        assert latest is not None
        assert latest.manifest


def test_one_without_a_measurement_serves_to_resume_from(sessions: Sessions, project_id: str) -> None:
    lease = running_job(sessions, project_id)
    for step, loss in ((1, 1.0), (2, 2.0), (3, None), (4, None)):
        checkpoint(sessions, lease, step, loss, kept=1)
    assert stored(sessions, lease) == {1: 10, 4: 10}


@pytest.mark.parametrize("end", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_of_a_job_without_a_result_all_go_after_their_days(sessions: Sessions, project_id: str, end: JobStatus) -> None:
    lease, succeeded = running_job(sessions, project_id), running_job(sessions, project_id)
    for one in (lease, succeeded):
        checkpoint(sessions, one, 1, 1.0)
        checkpoint(sessions, one, 2, 2.0)
    with sessions.begin() as session:
        job_leases.succeed(session, succeeded, results=[])
        if end is JobStatus.FAILED:
            job_leases.fail(session, lease, code="c", message="m")
        else:
            jobs.cancel(session, project_id, lease.job_id)
            job_leases.give_back(session, lease, "Stopped.")
        assert retention.drop_checkpoints(session, days=14, failed_days=1) == 0
        session.execute(text("UPDATE jobs SET finished_at = finished_at - interval '2 days'"))
        assert retention.drop_checkpoints(session, days=14, failed_days=1) == 2
    assert (stored(sessions, lease), stored(sessions, succeeded)) == ({}, {1: 10, 2: 10})
