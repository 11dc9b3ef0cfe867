"""Every move between two states: the legal ones write exactly one event, the others raise and change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from store import leases
from store.database import Sessions
from store.errors import IllegalTransition, LeaseLost
from store.job_status import TERMINAL, TRANSITIONS, JobStatus, may_become
from store.jobs import job_leases, jobs
from store.jobs.job_leases import JobLease
from store.tables.job import Job
from store.turns import JOBS
from tests.store.rows import add_file, add_job, claim, queued_job, read_events, read_job

S = JobStatus
EVERY_MOVE = [(current, following) for current in JobStatus for following in JobStatus]


def job_in(sessions: Sessions, project_id: str, status: JobStatus) -> JobLease:
    """A job brought there by the moves that bring it there in life; the claim is stale unless it runs."""
    waiting = status is S.VALIDATING_FILES
    job_id = add_job(sessions, add_file(sessions, project_id, status="uploaded" if waiting else "processed"))
    if waiting:
        return JobLease(job_id, project_id, 0)
    if status is S.PAUSED:
        with sessions.begin() as session:
            jobs.pause(session, project_id, job_id)
    owned = JobLease(job_id, project_id, 0) if status in (S.QUEUED, S.PAUSED) else claim(sessions, job_id)
    endings: dict[JobStatus, Callable[[Session], object]] = {
        S.SUCCEEDED: lambda session: job_leases.succeed(session, owned, results=[]),
        S.FAILED: lambda session: job_leases.fail(session, owned, code="c", message="m"),
        S.CANCELLED: lambda session: (
            jobs.cancel(session, project_id, job_id),
            job_leases.give_back(session, owned, ""),
        ),
    }
    if status in endings:
        with sessions.begin() as session:
            endings[status](session)
    assert read_job(sessions, job_id).status == status
    return owned


@pytest.mark.integration
@pytest.mark.parametrize(("current", "following"), [move for move in EVERY_MOVE if S.RUNNING not in move])
def test_a_legal_move_writes_one_event_and_any_other_is_refused(
    sessions: Sessions, project_id: str, current: JobStatus, following: JobStatus
) -> None:
    job_id = job_in(sessions, project_id, current).job_id
    before = read_events(sessions, job_id)

    def move() -> None:
        with sessions.begin() as session:
            jobs.transition(session, session.get_one(Job, job_id), following, "Moved.", action="moved")

    if may_become(current, following):
        move()
        job, added = read_job(sessions, job_id), read_events(sessions, job_id)[len(before) :]
        assert job.status == following
        assert [(event.message, event.data) for event in added] == [("Moved.", {"status": following})]
        assert (job.finished_at is not None) == (following in TERMINAL)
    else:
        with pytest.raises(IllegalTransition):
            move()
        assert read_job(sessions, job_id).status == current
        assert len(read_events(sessions, job_id)) == len(before)


WORKER_MOVES: dict[str, tuple[JobStatus, Callable[[Session, JobLease], object]]] = {
    "succeed": (S.SUCCEEDED, lambda session, owned: job_leases.succeed(session, owned, results=[])),
    "fail": (S.FAILED, lambda session, owned: job_leases.fail(session, owned, code="c", message="m")),
    "give back": (S.QUEUED, lambda session, owned: job_leases.give_back(session, owned, "m")),
    "crash": (S.QUEUED, lambda session, owned: job_leases.crash(session, owned, code="c", message="m", crash_cap=3)),
    "last crash": (
        S.FAILED,
        lambda session, owned: job_leases.crash(session, owned, code="c", message="m", crash_cap=1),
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", WORKER_MOVES)
@pytest.mark.parametrize("current", JobStatus)
def test_only_the_owner_of_a_running_job_moves_it_and_writes_one_event(
    sessions: Sessions, project_id: str, current: JobStatus, name: str
) -> None:
    owned = job_in(sessions, project_id, current)
    before = read_events(sessions, owned.job_id)
    following, act = WORKER_MOVES[name]

    def move() -> None:
        with sessions.begin() as session:
            act(session, owned)

    if current is S.RUNNING:
        move()
        job, added = read_job(sessions, owned.job_id), read_events(sessions, owned.job_id)[len(before) :]
        assert (job.status, job.lease_expires_at, job.requested) == (following, None, None)
        assert [(event.data or {})["status"] for event in added] == [following]
        assert added[0].attempt == owned.attempt
    else:
        with pytest.raises(LeaseLost):
            move()
        assert read_job(sessions, owned.job_id).status == current
        assert len(read_events(sessions, owned.job_id)) == len(before)


@pytest.mark.unit
def test_terminal_states_lead_nowhere_and_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert {S.SUCCEEDED, S.FAILED, S.CANCELLED} == TERMINAL


@pytest.mark.integration
def test_the_owner_pauses_resumes_and_cancels_a_queued_job(sessions: Sessions, project_id: str) -> None:
    job_id = queued_job(sessions, project_id)
    for act, status in ((jobs.pause, S.PAUSED), (jobs.resume, S.QUEUED), (jobs.cancel, S.CANCELLED)):
        for _ in range(2):  # repeated by a client, it changes nothing more
            with sessions.begin() as session:
                assert act(session, project_id, job_id).status == status
    reported = [(event.data or {})["status"] for event in read_events(sessions, job_id)]
    assert reported == ["queued", "paused", "queued", "cancelled"]
    for act in (jobs.pause, jobs.resume):
        with pytest.raises(IllegalTransition), sessions.begin() as session:
            act(session, project_id, job_id)


@pytest.mark.integration
def test_a_resume_queues_the_job_for_publishing_again(sessions: Sessions, project_id: str) -> None:
    job_id = queued_job(sessions, project_id)
    with sessions.begin() as session:
        leases.mark_published(session, JOBS, [job_id])
        jobs.pause(session, project_id, job_id)
        jobs.resume(session, project_id, job_id)
        assert leases.unpublished(session, JOBS, older_than_seconds=30) == [job_id]


@pytest.mark.integration
def test_a_hint_is_due_when_it_was_never_sent_or_is_old(sessions: Sessions, project_id: str) -> None:
    never, old, fresh = (queued_job(sessions, project_id) for _ in range(3))
    with sessions.begin() as session:
        leases.mark_published(session, JOBS, [old, fresh])
        session.execute(update(Job).where(Job.id == old).values(published_at="2020-01-01T00:00:00Z"))
        assert leases.unpublished(session, JOBS, older_than_seconds=30) == [never, old]
    claim(sessions, never)
    with sessions() as session:
        assert leases.unpublished(session, JOBS, older_than_seconds=30) == [old]
