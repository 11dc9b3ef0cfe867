"""Users, workers, stale workers and the dispatcher act on jobs in any order, one by one and at once: whatever they do,
the log tells a legal history. On a real PostgreSQL, driven by Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from store.database import Sessions
from store.errors import IllegalTransition, LeaseLost
from store.jobs import job_leases, jobs
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.tables.job import Job
from tests.faults.checker import violations
from tests.store.rows import add_file, add_job

pytestmark = pytest.mark.integration
CRASH_CAP = 3
WORKERS = st.integers(0, 3)
Act = Callable[[Session], object]


def bound(act: Callable[..., object], *arguments: object) -> Act:
    return lambda session: act(session, *arguments)


USER: dict[str, Callable[[Session, str, str], object]] = {
    "cancel": jobs.cancel,
    "pause": jobs.pause,
    "resume": jobs.resume,
}
WORKER: dict[str, Callable[[Session, JobLease], object]] = {
    "renew": lambda session, owned: job_leases.renew(session, owned, lease_seconds=60),
    "tell": lambda session, owned: job_leases.record(session, owned, [NewEvent("Step.")], progress={"step": 1}),
    "checkpoint": lambda session, owned: job_leases.add_checkpoint(
        session, owned, step=owned.attempt, metrics={}, manifest={}
    ),
    "succeed": lambda session, owned: job_leases.succeed(session, owned, results=[]),
    "fail": lambda session, owned: job_leases.fail(session, owned, code="c", message="m"),
    "give back": lambda session, owned: job_leases.give_back(session, owned, "Stopped."),
    "crash": lambda session, owned: job_leases.crash(session, owned, code="c", message="m", crash_cap=CRASH_CAP),
}


def histories(sessions: Sessions, project_id: str) -> type[RuleBasedStateMachine]:
    class Histories(RuleBasedStateMachine):
        """Four workers, each with the last claim it got, good or long lost: it does not know which."""

        submitted: Bundle[str] = Bundle("submitted")

        def __init__(self) -> None:
            super().__init__()
            self.jobs: list[str] = []
            self.claims: dict[int, JobLease] = {}

        @precondition(lambda self: len(self.jobs) < 2)
        @rule(target=submitted)
        def submit(self) -> str:
            self.jobs.append(add_job(sessions, add_file(sessions, project_id)))
            return self.jobs[-1]

        @rule(job_id=submitted, worker=WORKERS)
        def claim(self, job_id: str, worker: int) -> None:
            owned = self.acted(lambda session: job_leases.claim(session, job_id, worker="w", lease_seconds=60))
            if isinstance(owned, JobLease):
                self.claims[worker] = owned

        @rule(job_id=submitted, what=st.sampled_from(sorted(USER)))
        def user(self, job_id: str, what: str) -> None:
            self.acted(lambda session: USER[what](session, project_id, job_id))

        @rule(worker=WORKERS, what=st.sampled_from(sorted(WORKER)))
        def work(self, worker: int, what: str) -> None:
            if owned := self.claims.get(worker):
                self.acted(lambda session: WORKER[what](session, owned))

        @rule(worker=WORKERS)
        def lease_runs_out(self, worker: int) -> None:
            """By the database's clock; the dispatcher has not looked yet, and the worker does not know."""
            if owned := self.claims.get(worker):
                self.acted(
                    lambda session: session.execute(
                        update(Job)
                        .where(Job.id == owned.job_id, Job.attempt == owned.attempt, Job.lease_expires_at.is_not(None))
                        .values(lease_expires_at=func.clock_timestamp())
                    )
                )

        @rule(worker=WORKERS, other=WORKERS)
        def taken_over(self, worker: int, other: int) -> None:
            if owned := self.claims.get(worker):
                self.lease_runs_out(worker)
                self.dispatcher()
                self.claim(owned.job_id, other)

        @rule()
        def dispatcher(self) -> None:
            self.acted(lambda session: job_leases.expire(session, crash_cap=CRASH_CAP))

        @rule(
            job_id=submitted,
            worker=WORKERS,
            users=st.lists(st.sampled_from(sorted(USER)), max_size=2),
            acts=st.lists(st.sampled_from(sorted(WORKER)), min_size=1, max_size=3),
        )
        def all_at_once(self, job_id: str, worker: int, users: list[str], acts: list[str]) -> None:
            owned = self.claims.get(worker, JobLease(job_id, project_id, 1))
            together: list[Act] = [lambda session: job_leases.claim(session, job_id, worker="w", lease_seconds=60)] * 2
            together.append(lambda session: job_leases.expire(session, crash_cap=CRASH_CAP))
            together += [bound(USER[what], project_id, owned.job_id) for what in users]
            together += [bound(WORKER[what], owned) for what in acts]
            start = Barrier(len(together))

            def run(act: Act) -> object:
                start.wait()
                return self.acted(act)

            with ThreadPoolExecutor(len(together)) as pool:
                claimed = [got for got in pool.map(run, together) if isinstance(got, JobLease)]
            assert len({one.attempt for one in claimed}) == len(claimed)
            if claimed:
                self.claims[worker] = max(claimed, key=lambda one: one.attempt)

        @invariant()
        def the_log_tells_a_legal_history(self) -> None:
            with sessions() as session:
                assert violations(session, all_ended=False, of=self.jobs) == []

        def acted(self, act: Act) -> object:
            """What is refused changes nothing; anything but a refusal is a fault."""
            try:
                with sessions.begin() as session:
                    return act(session)
            except (IllegalTransition, LeaseLost):
                return None

    return Histories


def test_whatever_happens_in_whatever_order_the_history_is_legal(sessions: Sessions, project_id: str) -> None:
    run_state_machine_as_test(
        histories(sessions, project_id),
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
