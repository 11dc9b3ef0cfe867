"""Quotas hold when many come at once, and give room back when something ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from store.database import Sessions
from store.datasets import datasets
from store.datasets.datasets import NewPair
from store.errors import QuotaExceeded
from store.files import files, uploads
from store.files.files import NewFile
from store.files.uploads import NewUpload
from store.job_status import JobStatus
from store.jobs import job_leases, jobs
from store.jobs.job_leases import JobLease
from store.jobs.jobs import NewJob
from store.tables.job import Job
from store.tables.upload import Upload
from store.tenants import projects, quotas, usage
from store.tenants.limits import ProjectLimits
from tests.conftest import make_tenant
from tests.store.rows import SPEC, add_file, queued_job, running_job

pytestmark = pytest.mark.integration
AT_ONCE = 12


def compete(sessions: Sessions, act: Callable[[Session, int], object]) -> int:
    """How many of AT_ONCE transactions that begin together were not refused."""
    start = threading.Barrier(AT_ONCE)

    def one(number: int) -> bool:
        start.wait()
        try:
            with sessions.begin() as session:
                return act(session, number) is not None
        except QuotaExceeded:
            return False

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(one, range(AT_ONCE)))


def claim(session: Session, job_id: str, limits: ProjectLimits) -> JobLease | None:
    return job_leases.claim(session, job_id, worker="w", lease_seconds=60, limits=limits)


def test_of_claims_at_once_no_more_go_through_than_may_run(sessions: Sessions, project_id: str) -> None:
    waiting = [queued_job(sessions, project_id) for _ in range(AT_ONCE)]
    limits = ProjectLimits(running_jobs=3)
    assert compete(sessions, lambda session, number: claim(session, waiting[number], limits)) == 3
    with sessions() as session:
        assert usage.jobs_in(session, project_id, JobStatus.RUNNING) == 3


def test_a_project_at_its_limit_leaves_its_jobs_queued_and_others_alone(sessions: Sessions, project_id: str) -> None:
    limits, running = ProjectLimits(running_jobs=1), running_job(sessions, project_id)
    mine, theirs = queued_job(sessions, project_id), queued_job(sessions, make_tenant(sessions, "second").id)
    with sessions.begin() as session:
        assert claim(session, mine, limits) is None
        assert session.get_one(Job, mine).status == JobStatus.QUEUED
        assert claim(session, theirs, limits) is not None
        job_leases.give_back(session, running, "Stopped.")
        assert claim(session, mine, limits) is not None


def test_a_projects_own_limit_comes_before_the_deployments(sessions: Sessions, project_id: str) -> None:
    running_job(sessions, project_id)
    job_id = queued_job(sessions, project_id)
    for own, default, claimed in (({"running_jobs": 1}, None, False), ({"running_jobs": None}, 1, True)):
        with sessions() as session:  # rolled back
            projects.set_limits(session, "first", own=own, dropped=())
            assert (claim(session, job_id, ProjectLimits(running_jobs=default)) is not None) == claimed


def test_what_a_project_is_given_stays_until_it_is_dropped(sessions: Sessions, project_id: str) -> None:
    with sessions.begin() as session:
        projects.set_limits(session, "first", own={"uploads": 3, "queued_jobs": None}, dropped=())
        projects.set_limits(session, "first", own={"stored_bytes": 5}, dropped={"uploads"})
        [project] = projects.every(session)
        assert project.limits == {"queued_jobs": None, "stored_bytes": 5}


def test_files_at_once_take_no_more_than_the_bytes_there_are(sessions: Sessions, project_id: str) -> None:
    def store(session: Session, number: int) -> object:
        quotas.require_storage(session, project_id, ProjectLimits(stored_bytes=35), 10)
        new = NewFile(project_id, "a", "fine-tune", 10, "0" * 64)
        return files.create(session, new, status="processed")

    assert compete(sessions, store) == 3
    with sessions.begin() as session:
        [first, *_] = files.newest_first(session, project_id, after=None, limit=1, purpose=None)
        files.delete(session, project_id, first.id)
        assert usage.stored_bytes(session, project_id) == 20


def test_uploads_at_once_are_no_more_than_may_be_in_flight(sessions: Sessions, project_id: str) -> None:
    def begin(session: Session, number: int) -> object:
        quotas.require_upload(session, project_id, ProjectLimits(uploads=4), 1)
        return uploads.create(session, NewUpload(project_id, "a", "fine-tune", 1), lifetime_seconds=60)

    assert compete(sessions, begin) == 4


def test_an_upload_reserves_its_bytes_from_its_beginning_until_its_time_is_over(
    sessions: Sessions, project_id: str
) -> None:
    limits = ProjectLimits(stored_bytes=100, uploads=1)
    with sessions.begin() as session:
        upload = uploads.create(session, NewUpload(project_id, "a", "fine-tune", 80), lifetime_seconds=60)
        with pytest.raises(QuotaExceeded, match=r"quota of stored bytes is 100; 80 are used, and this needs 21 more"):
            quotas.require_storage(session, project_id, limits, 21)
        quotas.require_storage(session, project_id, limits, 20)
        with pytest.raises(QuotaExceeded, match=r"uploads in flight is 1; 1 are used.*Complete or cancel one, or ask"):
            quotas.require_upload(session, project_id, limits, 1)
        past = func.clock_timestamp() - timedelta(seconds=1)
        session.execute(update(Upload).where(Upload.id == upload.id).values(expires_at=past))
        quotas.require_upload(session, project_id, limits, 100)


def test_jobs_at_once_are_no_more_than_may_wait(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id)

    def create(session: Session, number: int) -> object:
        quotas.require_waiting_job(session, project_id, ProjectLimits(queued_jobs=5))
        return jobs.create(session, NewJob(project_id, SPEC, file, None))

    assert compete(sessions, create) == 5


def test_a_paused_job_waits_too_and_a_running_or_ended_one_does_not(sessions: Sessions, project_id: str) -> None:
    running_job(sessions, project_id)
    paused, cancelled = queued_job(sessions, project_id), queued_job(sessions, project_id)
    with sessions.begin() as session:
        jobs.pause(session, project_id, paused)
        jobs.cancel(session, project_id, cancelled)
        quotas.require_waiting_job(session, project_id, ProjectLimits(queued_jobs=2))
        with pytest.raises(QuotaExceeded):
            quotas.require_waiting_job(session, project_id, ProjectLimits(queued_jobs=1))


def ago(session: Session, job_id: str, *, claimed: float, lease_over: float) -> None:
    """The job's claim and the end of its lease, in seconds before now."""
    now = func.clock_timestamp()
    moved = {"claimed_at": now - timedelta(seconds=claimed), "lease_expires_at": now - timedelta(seconds=lease_over)}
    session.execute(update(Job).where(Job.id == job_id).values(**moved))


def test_training_time_is_that_of_all_attempts_and_no_longer_than_a_lost_workers_lease(
    sessions: Sessions, project_id: str
) -> None:
    owned = running_job(sessions, project_id)
    with sessions.begin() as session:
        ago(session, owned.job_id, claimed=100, lease_over=-60)
        assert usage.training(session, project_id).seconds == pytest.approx(100, abs=1)
        job_leases.give_back(session, owned, "Stopped.")
        assert usage.training(session, project_id).seconds == pytest.approx(100, abs=1)
        assert claim(session, owned.job_id, ProjectLimits()) is not None
        ago(session, owned.job_id, claimed=1000, lease_over=700)
        assert job_leases.expire(session, crash_cap=3) == [owned.job_id]
        found = usage.training(session, project_id)
    assert found.seconds == pytest.approx(100 + 300, abs=1)
    assert (found.jobs[JobStatus.QUEUED], sum(found.jobs.values()), len(found.jobs)) == (1, 1, len(JobStatus))


def test_files_uploads_and_the_images_of_data_sets_count_together(sessions: Sessions, project_id: str) -> None:
    other_id = make_tenant(sessions, "second").id
    with sessions.begin() as session:
        for owner, factor in ((project_id, 1), (other_id, 1000)):
            files.create(session, NewFile(owner, "a", "fine-tune", factor, "0" * 64), status="processed")
            uploads.create(session, NewUpload(owner, "a", "fine-tune", 10 * factor), lifetime_seconds=60)
            dataset = datasets.create(session, owner, "d", None, [])
            datasets.add(session, dataset, [NewPair("p", "c", "r")], "added", images_bytes=100 * factor)
            session.flush()
        assert usage.stored_bytes(session, project_id) == 111
        [mine] = datasets.newest_first(session, project_id, after=None, limit=9)
        datasets.delete(session, project_id, mine.id)
        session.flush()
        assert usage.stored_bytes(session, project_id) == 11
