"""What the checker is for: each kind of wrong history is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from store.database import Sessions, open_engine
from store.jobs import events, job_leases, jobs
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.tables.job import Job
from tests import servers
from tests.conftest import emptied, make_tenant
from tests.faults.checker import violations
from tests.store.rows import claim, running_job

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine(postgres_url: str) -> Iterator[Engine]:
    with servers.database(postgres_url, "checker") as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    return emptied(engine)


@pytest.fixture
def owned(sessions: Sessions) -> JobLease:
    return running_job(sessions, make_tenant(sessions, "first").id)


def append(session: Session, owned: JobLease, *reported: NewEvent, attempt: int = 1) -> None:
    events.append(session, owned.job_id, reported, attempt=attempt)


def status(session: Session, owned: JobLease, to: str) -> None:
    append(session, owned, NewEvent("Moved.", data={"status": to}), attempt=0)


def row(session: Session, owned: JobLease, **changes: object) -> None:
    session.execute(update(Job).where(Job.id == owned.job_id).values(**changes))


def cancelled_twice(session: Session, owned: JobLease) -> None:
    for _ in range(2):
        status(session, owned, "cancelled")


def late_write(session: Session, owned: JobLease) -> None:
    job_leases.give_back(session, owned, "Stopped.")
    job_leases.claim(session, owned.job_id, worker="w2", lease_seconds=60)
    append(session, owned, NewEvent("Step."))


WRONG: dict[str, Callable[[Session, JobLease], None]] = {
    "attempt 1 wrote 'Step.' after attempt 2 had claimed": late_write,
    "attempt 3 wrote 'Step.' before it had claimed": lambda s, o: append(s, o, NewEvent("Step."), attempt=3),
    "went from running to validating_files": lambda s, o: status(s, o, "validating_files"),
    "is running, but its log ends with queued": lambda s, o: status(s, o, "queued"),
    "ended 2 times": cancelled_twice,
    "was accepted and is still running": lambda *_: None,
    "is at attempt 2, but its log at 1": lambda s, o: row(s, o, attempt=2),
    "with model ft:x": lambda s, o: row(s, o, fine_tuned_model="ft:x"),
    "reported 2 times by attempt 1: 'Step.'": lambda s, o: append(
        s, o, *[NewEvent("Step.", type="metrics", data={"step": 1}) for _ in range(2)]
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_wrong_history_is_reported(sessions: Sessions, owned: JobLease, sentence: str) -> None:
    with sessions.begin() as session:
        WRONG[sentence](session, owned)
    with sessions() as session:
        found = violations(session, all_ended=True)
    assert any(sentence in one for one in found), found


def test_a_job_that_was_lost_and_taken_over_is_no_wrong_history(sessions: Sessions, owned: JobLease) -> None:
    with sessions.begin() as session:
        job_leases.crash(session, owned, code="c", message="m", crash_cap=3)
    second = claim(sessions, owned.job_id)
    with sessions.begin() as session:
        job_leases.record(session, second, [NewEvent("Step.", type="metrics", data={"step": 1})])
        job_leases.succeed(session, second, results=[])
    with sessions() as session:
        assert violations(session, all_ended=True) == []
        assert jobs.statuses(session, [owned.job_id]) == {owned.job_id: "succeeded"}
