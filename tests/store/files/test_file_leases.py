"""Files that intake reads: one reader at a time, the jobs that wait move on, a deadly file is given up."""

from __future__ import annotations

import pytest
from sqlalchemy import func, update

from intake.findings import ADVICE
from store import leases
from store.database import Sessions
from store.errors import FileInUse, FileNotFound, LeaseLost
from store.files import file_leases, files
from store.files.file_leases import FileLease
from store.jobs import jobs
from store.tables.file import File
from store.turns import FILES
from tests.store.rows import add_file, add_job, read_events, read_job

pytestmark = pytest.mark.integration


def claim_file(sessions: Sessions, file_id: str) -> FileLease | None:
    with sessions.begin() as session:
        return file_leases.claim(session, file_id, lease_seconds=60)


def finish(sessions: Sessions, file_id: str, *, status: str, details: str | None = None) -> list[str]:
    owned = claim_file(sessions, file_id)
    assert owned is not None
    with sessions.begin() as session:
        file_leases.finish(session, owned, status=status, details=details)
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


def expire(sessions: Sessions) -> list[str]:
    with sessions.begin() as session:
        return file_leases.expire(session, crash_cap=3)


def is_refused(sessions: Sessions, owned: FileLease) -> bool:
    with sessions() as session:
        for write in (
            lambda: file_leases.finish(session, owned, status="processed", details=None),
            lambda: file_leases.renew(session, owned, lease_seconds=60),
            lambda: file_leases.note_progress(session, owned, {}),
            lambda: file_leases.give_back(session, owned),
            lambda: file_leases.crash(session, owned, reason="", crash_cap=3),
        ):
            with pytest.raises(LeaseLost):
                write()
    return True


def test_a_file_has_one_reader_until_its_lease_ends(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id, status="uploaded")
    first = claim_file(sessions, file.id)
    assert first is not None
    assert claim_file(sessions, file.id) is None
    assert expire(sessions) == []
    expire_lease(sessions, file.id)
    assert expire(sessions) == []  # not given up
    assert is_refused(sessions, first)
    second = claim_file(sessions, file.id)
    assert second is not None
    assert second.attempt > first.attempt
    assert is_refused(sessions, first)
    with sessions.begin() as session:
        file_leases.finish(session, second, status="processed", details=None)
        assert files.get(session, project_id, file.id).status == "processed"


def test_a_file_that_keeps_breaking_its_readers_is_refused(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id, status="uploaded")
    for crash in range(1, 4):
        assert claim_file(sessions, file.id) is not None
        assert expire(sessions) == []  # its lease is good
        expire_lease(sessions, file.id)
        assert expire(sessions) == ([file.id] if crash == 3 else [])
    with sessions() as session:
        given_up = files.get(session, project_id, file.id)
    assert given_up.status == "error"
    assert (given_up.status_details or "").startswith(
        "intake_crashed: reading this file broke off 3 times, the last time because the worker is gone"
    )
    assert (given_up.status_details or "").endswith(ADVICE["intake_crashed"])
    assert claim_file(sessions, file.id) is None


def test_a_file_that_stopping_workers_gave_back_is_due_at_once_and_none_the_worse(
    sessions: Sessions, project_id: str
) -> None:
    file = add_file(sessions, project_id, status="uploaded")
    for _ in range(5):
        with sessions.begin() as session:
            leases.mark_published(session, FILES, [file.id])
        owned = claim_file(sessions, file.id)
        assert owned is not None
        with sessions.begin() as session:
            file_leases.give_back(session, owned)
            assert leases.unpublished(session, FILES, older_than_seconds=30) == [file.id]
        assert is_refused(sessions, owned)
    with sessions() as session:
        assert files.get(session, project_id, file.id).crashes == 0


def test_what_a_reader_says_of_its_own_end_is_reported_at_the_last(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id, status="uploaded")
    for crash in range(1, 4):
        owned = claim_file(sessions, file.id)
        assert owned is not None
        with sessions.begin() as session:
            assert file_leases.crash(session, owned, reason="No space left", crash_cap=3) is (crash == 3)
    with sessions() as session:
        details = files.get(session, project_id, file.id).status_details or ""
    assert "broke off 3 times, the last time because No space left. " in details


def test_a_file_hint_is_due_until_the_file_is_claimed_or_deleted(sessions: Sessions, project_id: str) -> None:
    never, sent, claimed, deleted = (add_file(sessions, project_id, status="uploaded") for _ in range(4))
    with sessions.begin() as session:
        leases.mark_published(session, FILES, [sent.id])
        files.delete(session, project_id, deleted.id)
    assert claim_file(sessions, claimed.id) is not None
    assert claim_file(sessions, deleted.id) is None
    with sessions() as session:
        assert leases.unpublished(session, FILES, older_than_seconds=30) == [never.id]
        assert leases.unpublished(session, FILES, older_than_seconds=-1) == [never.id, sent.id]


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
