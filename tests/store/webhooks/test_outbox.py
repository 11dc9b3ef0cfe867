"""Every move of a job, in every way that there is: an end leaves one delivery for each subscriber, the others none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from store.database import Sessions
from store.job_status import TERMINAL, TRANSITIONS, JobStatus
from store.jobs import job_leases, jobs
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.tables.file import File
from store.tables.job import Job
from store.webhooks import outbox
from tests.store.test_transitions import job_in
from tests.store.webhooks.test_endpoints import EVERY, endpoint, log

S = JobStatus
Act = Callable[[Session, JobLease], object]
Move = tuple[JobStatus, JobStatus, Act]


def intake_ends(session: Session, owned: JobLease, status: str) -> None:
    file = session.get_one(File, session.get_one(Job, owned.job_id).training_file_id)
    file.status = status
    session.flush()
    jobs.files_ready(session, file.id)


def lease_expires(session: Session, owned: JobLease, *, crash_cap: int) -> None:
    past = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
    session.execute(update(Job).where(Job.id == owned.job_id).values(lease_expires_at=past))
    job_leases.expire(session, crash_cap=crash_cap)


def cancel(session: Session, owned: JobLease) -> None:
    jobs.cancel(session, owned.project_id, owned.job_id)


def pause(session: Session, owned: JobLease) -> None:
    jobs.pause(session, owned.project_id, owned.job_id)


def give_back(session: Session, owned: JobLease) -> None:
    job_leases.give_back(session, owned, "Stopped.")


def crash(session: Session, owned: JobLease, *, crash_cap: int = 3) -> None:
    job_leases.crash(session, owned, code="c", message="m", crash_cap=crash_cap)


def lose_for_the_last_time(session: Session, owned: JobLease) -> None:
    lease_expires(session, owned, crash_cap=1)


def after(request: Act, act: Act) -> Act:
    def both(session: Session, owned: JobLease) -> None:
        request(session, owned)
        act(session, owned)

    return both


MOVES: dict[str, Move] = {
    "files read": (S.VALIDATING_FILES, S.QUEUED, lambda session, owned: intake_ends(session, owned, "processed")),
    "file refused": (S.VALIDATING_FILES, S.FAILED, lambda session, owned: intake_ends(session, owned, "error")),
    "cancelled before its files are read": (S.VALIDATING_FILES, S.CANCELLED, cancel),
    "claimed": (
        S.QUEUED,
        S.RUNNING,
        lambda session, owned: job_leases.claim(session, owned.job_id, worker="w", lease_seconds=60),
    ),
    "paused in the queue": (S.QUEUED, S.PAUSED, pause),
    "cancelled in the queue": (S.QUEUED, S.CANCELLED, cancel),
    "succeeded": (S.RUNNING, S.SUCCEEDED, lambda session, owned: job_leases.succeed(session, owned, results=[])),
    "failed": (S.RUNNING, S.FAILED, lambda session, owned: job_leases.fail(session, owned, code="c", message="m")),
    "crashed for the last time": (S.RUNNING, S.FAILED, lambda session, owned: crash(session, owned, crash_cap=1)),
    "lost for the last time": (S.RUNNING, S.FAILED, lose_for_the_last_time),
    "given back after a cancel": (
        S.RUNNING,
        S.CANCELLED,
        after(cancel, give_back),
    ),
    "crashed after a cancel": (
        S.RUNNING,
        S.CANCELLED,
        after(cancel, crash),
    ),
    "lost after a cancel": (
        S.RUNNING,
        S.CANCELLED,
        after(cancel, lose_for_the_last_time),
    ),
    "given back": (S.RUNNING, S.QUEUED, give_back),
    "crashed": (S.RUNNING, S.QUEUED, crash),
    "lost": (S.RUNNING, S.QUEUED, lambda session, owned: lease_expires(session, owned, crash_cap=3)),
    "given back after a pause": (
        S.RUNNING,
        S.PAUSED,
        after(pause, give_back),
    ),
    "requested to cancel": (S.RUNNING, S.RUNNING, cancel),
    "reported as ended by an event alone": (
        S.RUNNING,
        S.RUNNING,
        lambda session, owned: job_leases.record(session, owned, [NewEvent("m", data={"status": "succeeded"})]),
    ),
    "resumed": (
        S.PAUSED,
        S.QUEUED,
        lambda session, owned: jobs.resume(session, owned.project_id, owned.job_id),
    ),
    "cancelled while paused": (S.PAUSED, S.CANCELLED, cancel),
}


@pytest.mark.unit
def test_every_transition_of_the_table_is_tried_here() -> None:
    tried = {(current, following) for current, following, _ in MOVES.values() if current != following}
    assert tried == {(current, following) for current, nexts in TRANSITIONS.items() for following in nexts}


@pytest.mark.integration
@pytest.mark.parametrize("name", MOVES)
def test_an_end_leaves_one_delivery_for_each_subscribed_endpoint_and_any_other_move_none(
    sessions: Sessions, project_id: str, name: str
) -> None:
    current, following, act = MOVES[name]
    mine = f"fine_tuning.job.{following}"
    subscribed = [endpoint(sessions, project_id, wants=wants) for wants in (EVERY, EVERY)]
    other = endpoint(sessions, project_id, wants=tuple(one for one in EVERY if one != mine))
    owned = job_in(sessions, project_id, current)
    with sessions.begin() as session:
        act(session, owned)
    with sessions() as session:
        assert session.get_one(Job, owned.job_id).status == following
    expected = [(owned.job_id, mine)] if following in TERMINAL else []
    for one in subscribed:
        assert [(delivery.job_id, delivery.type) for delivery in log(sessions, one)] == expected
    assert log(sessions, other) == []


@pytest.mark.integration
def test_a_job_that_has_not_ended_is_refused(sessions: Sessions, project_id: str) -> None:
    endpoint(sessions, project_id)
    owned = job_in(sessions, project_id, S.RUNNING)
    with pytest.raises(KeyError), sessions.begin() as session:
        outbox.job_ended(session, owned.job_id)
