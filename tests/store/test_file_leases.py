"""Files that intake reads: one reader at a time, the jobs that wait move on, a deadly file is given up."""

from __future__ import annotations

import pytest
from sqlalchemy import func, update

from intake.findings import ADVICE
from store import files, jobs, leases
from store.database import Sessions
from store.errors import FileInUse, FileNotFound, LeaseLost
from store.leases import FileClaim
from store.models import File
from tests.store.rows import add_file, add_job, read_events, read_job

pytestmark = pytest.mark.integration


def claim_file(sessions: Sessions, file_id: str) -> FileClaim | None:
    with sessions.begin() as session:
        return leases.claim_file(session, file_id, lease_seconds=60)


def finish(sessions: Sessions, file_id: str, *, status: str, details: str | None = None) -> list[str]:
    owned = claim_file(sessions, file_id)
    assert owned is not None
    with sessions.begin() as session:
        leases.finish_file(session, owned, status=status, details=details)
        return jobs.files_ready(session, file_id)


def expire_lease(sessions: Sessions, file_id: str) -> None:
    with sessions.begin() as session:
        session.execute(update(File).where(File.id == file_id).values(lease_expires_at=func.now()))


def test_a_job_waits_for_both_of_its_files(sessions: Sessions, project_id: str) -> None:
    training, validation = (add_file(sessions, project_id, status="uploaded") for _ in range(2))
    job_id = add_job(sessions, training, validation)
    assert read_job(sessions, job_id).status == "validating_files"
    assert finish(sessions, validation.id, status="processed") == []
    assert read_job(sessions, job_id).status == "validating_files"
    assert finish(sessions, training.id, status="processed") == [job_id]
    assert read_job(sessions, job_id).status == "queued"


def test_a_refused_file_fails_the_jobs_that_wait_for_it(sessions: Sessions, project_id: str) -> None:
    training, validation = add_file(sessions, project_id), add_file(sessions, project_id, status="uploaded")
    job_id = add_job(sessions, training, validation)
    assert finish(sessions, validation.id, status="error", details="image_missing: row 3") == []
    job = read_job(sessions, job_id)
    assert job.status == "failed"
    assert job.error == {
        "code": "invalid_file",
        "message": f"{validation.id}: image_missing: row 3",
        "param": "validation_file",
    }
    assert [event.level for event in read_events(sessions, job_id)] == ["info", "error"]


def test_a_file_has_one_reader_until_its_lease_ends(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id, status="uploaded")
    first = claim_file(sessions, file.id)
    assert first is not None
    assert claim_file(sessions, file.id) is None
    expire_lease(sessions, file.id)
    second = claim_file(sessions, file.id)
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    with pytest.raises(LeaseLost), sessions.begin() as session:
        leases.finish_file(session, first, status="processed", details=None)
    with pytest.raises(LeaseLost), sessions.begin() as session:
        leases.renew_file(session, first, lease_seconds=60)
    with sessions.begin() as session:
        leases.finish_file(session, second, status="processed", details=None)
        assert files.get(session, project_id, file.id).status == "processed"


def test_a_file_that_keeps_breaking_its_readers_is_refused(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id, status="uploaded")
    for attempt in range(1, 4):
        assert claim_file(sessions, file.id) is not None
        with sessions.begin() as session:
            assert leases.give_up_files(session, crash_cap=3) == []  # its lease is good
        expire_lease(sessions, file.id)
        with sessions.begin() as session:
            assert leases.give_up_files(session, crash_cap=3) == ([file.id] if attempt == 3 else [])
    with sessions() as session:
        given_up = files.get(session, project_id, file.id)
    assert given_up.status == "error"
    assert given_up.status_details == f"intake_crashed: reading this file broke off 3 times. {ADVICE['intake_crashed']}"
    assert claim_file(sessions, file.id) is None


def test_a_file_hint_is_due_until_the_file_is_claimed_or_deleted(sessions: Sessions, project_id: str) -> None:
    never, sent, claimed, deleted = (add_file(sessions, project_id, status="uploaded") for _ in range(4))
    with sessions.begin() as session:
        files.mark_published(session, [sent.id])
        files.delete(session, project_id, deleted.id)
    assert claim_file(sessions, claimed.id) is not None
    assert claim_file(sessions, deleted.id) is None
    with sessions() as session:
        assert files.unpublished(session, older_than_seconds=30) == [never.id]
        assert files.unpublished(session, older_than_seconds=-1) == [never.id, sent.id]


def test_a_file_is_not_deleted_under_a_live_job(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id)
    job_id = add_job(sessions, file)
    with pytest.raises(FileInUse), sessions.begin() as session:
        files.delete(session, project_id, file.id)
    with sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
        files.delete(session, project_id, file.id)
    with pytest.raises(FileNotFound), sessions() as session:
        files.get(session, project_id, file.id)
