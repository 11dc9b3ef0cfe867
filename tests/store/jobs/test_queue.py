"""Whose turn it is: fair between projects, by priority and age within one, and nobody waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

from store.database import Sessions
from store.jobs import job_leases, jobs, queue
from store.jobs.job_leases import JobLease
from store.jobs.jobs import NewJob
from store.jobs.queue import PRIORITY_STEP
from store.tables.job import MAX_PRIORITY, Job
from tests.conftest import make_tenant
from tests.store.rows import SPEC, add_file, claim, queued_job

HOUR = timedelta(hours=1)


class Projects:
    """Projects of one test, by letter, and their jobs, by the names that the test gives them."""

    def __init__(self, sessions: Sessions, letters: str) -> None:
        self.sessions = sessions
        self.ids = {letter: make_tenant(sessions, letter).id for letter in letters}
        self._files = {letter: add_file(sessions, project) for letter, project in self.ids.items()}
        self._names: dict[str, str] = {}

    def submit(
        self, letter: str, *, priority: int = 0, waited: timedelta = timedelta(), memory_gib: int | None = None
    ) -> str:
        attributes = {"priority": priority, "memory_gib": memory_gib}
        new = NewJob(self.ids[letter], SPEC, self._files[letter], None, attributes)
        with self.sessions.begin() as session:
            job = jobs.create(session, new)
            session.execute(update(Job).where(Job.id == job.id).values(queued_at=Job.queued_at - waited))
        self._names[job.id] = f"{letter}{sum(name[0] == letter for name in self._names.values()) + 1}"
        return self._names[job.id]

    def take(self, *, memory_gib: int | None = None) -> tuple[str, JobLease] | None:
        with self.sessions.begin() as session:
            owned = job_leases.claim_next(session, worker="w", lease_seconds=600, memory_gib=memory_gib)
        return (self._names[owned.job_id], owned) if owned is not None else None

    def take_and_end(self, *, memory_gib: int | None = None) -> str:
        taken = self.take(memory_gib=memory_gib)
        assert taken is not None
        self.end(taken[1])
        return taken[0]

    def end(self, owned: JobLease) -> None:
        with self.sessions.begin() as session:
            job_leases.fail(session, owned, code="c", message="m")

    def positions(self) -> list[str]:
        """Names of all that are queued, in the order of their places."""
        with self.sessions() as session:
            places = queue.positions(session, list(self._names))
        assert sorted(place.position for place in places.values()) == list(range(1, len(places) + 1))
        return [self._names[job_id] for job_id in sorted(places, key=lambda job_id: places[job_id].position)]


@pytest.mark.integration
def test_a_project_with_many_jobs_and_one_with_few_take_turns_on_one_worker(sessions: Sessions) -> None:
    projects = Projects(sessions, "AB")
    for _ in range(4):
        projects.submit("A")
    for _ in range(2):
        projects.submit("B")
    assert [projects.take_and_end() for _ in range(6)] == ["A1", "B1", "A2", "B2", "A3", "A4"]
    assert projects.take() is None


@pytest.mark.integration
def test_on_several_workers_the_project_with_the_fewest_running_jobs_comes_first(sessions: Sessions) -> None:
    projects = Projects(sessions, "AB")
    for _ in range(3):
        projects.submit("A")
    [(first, _), (second, _)] = [taken for taken in (projects.take(), projects.take()) if taken is not None]
    assert (first, second) == ("A1", "A2")
    for _ in range(3):
        projects.submit("B")
    assert projects.positions() == ["B1", "B2", "A3", "B3"]
    assert [taken[0] for taken in (projects.take() for _ in range(4)) if taken] == ["B1", "B2", "A3", "B3"]


@pytest.mark.integration
def test_within_a_project_a_step_of_priority_counts_as_six_hours_of_waiting(sessions: Sessions) -> None:
    projects = Projects(sessions, "AB")
    projects.submit("A", waited=HOUR)
    projects.submit("A", priority=1)
    projects.submit("A", priority=-1)
    projects.submit("A", waited=7 * HOUR)
    projects.submit("B", priority=-MAX_PRIORITY)  # which concerns B's own jobs alone
    order = ["A4", "B1", "A2", "A1", "A3"]
    assert projects.positions() == order
    assert [projects.take_and_end() for _ in range(5)] == order


@pytest.mark.integration
def test_a_job_that_went_back_joins_the_end_of_its_projects_queue(sessions: Sessions) -> None:
    projects = Projects(sessions, "A")
    projects.submit("A")
    projects.submit("A")
    taken = projects.take()
    assert taken is not None
    with sessions.begin() as session:
        job_leases.give_back(session, taken[1], "Stopped.")
    assert projects.positions() == ["A2", "A1"]


@pytest.mark.integration
def test_the_database_takes_no_priority_beyond_the_bounds(sessions: Sessions, project_id: str) -> None:
    """Of which the bound on waiting is made."""
    job_id = queued_job(sessions, project_id)
    with pytest.raises(IntegrityError), sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(priority=MAX_PRIORITY + 1))


PRIORITIES = st.integers(-MAX_PRIORITY, MAX_PRIORITY)
ACTS = st.one_of(
    st.tuples(st.sampled_from("ABC"), PRIORITIES, st.integers(0, 200)), st.just("take"), st.just("end a job")
)


@pytest.mark.integration
def test_whatever_comes_the_next_job_is_the_first_in_line_and_the_shares_are_even(sessions: Sessions) -> None:
    index = 0

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(ACTS, max_size=25))
    def check(acts: list[tuple[str, int, int] | str]) -> None:
        nonlocal index
        with sessions.begin() as session:
            session.execute(text("TRUNCATE projects CASCADE"))
        projects = Projects(sessions, "ABC")
        running: list[tuple[str, JobLease]] = []
        for act in acts:
            line = projects.positions()
            if isinstance(act, tuple):
                projects.submit(act[0], priority=act[1], waited=act[2] * HOUR)
            elif act == "end a job" and running:
                projects.end(running.pop(0)[1])
            elif act == "take":
                taken = projects.take()
                assert (taken[0] if taken else None) == (line[0] if line else None)
                if taken:
                    shares = {letter: sum(name[0] == letter for name, _ in running) for letter in "ABC"}
                    waiting = {name[0] for name in line}
                    assert shares[taken[0][0]] == min(shares[letter] for letter in waiting)
                    running.append(taken)
        # What is left goes in the order that was returned, as long as nothing ends.
        line = projects.positions()
        assert [taken[0] for taken in (projects.take() for _ in line) if taken] == line

    check()


@pytest.mark.integration
@pytest.mark.parametrize("workers", [1, 2])
def test_no_flood_of_other_projects_starves_a_job(sessions: Sessions, workers: int) -> None:
    """Two projects queue more than can ever run, urgent all of it; the third has one job of the lowest priority."""
    projects = Projects(sessions, "ABC")
    running: list[tuple[str, JobLease]] = []
    for _ in range(5):
        for letter in "AB":
            projects.submit(letter, priority=MAX_PRIORITY)
    while len(running) < workers:
        running.append(projects.take() or pytest.fail("nothing to take"))
    projects.submit("C", priority=-MAX_PRIORITY)
    taken: list[str] = []
    while "C1" not in taken:
        for letter in "AB":
            projects.submit(letter, priority=MAX_PRIORITY)
        projects.end(running.pop(0)[1])
        running.append(projects.take() or pytest.fail("nothing to take"))
        taken.append(running[-1][0])
        assert len(taken) <= 2  # at most once each of the other projects


@pytest.mark.integration
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(own=PRIORITIES, others=st.lists(PRIORITIES, min_size=1, max_size=4))
def test_no_flood_of_its_own_project_starves_a_job(sessions: Sessions, own: int, others: list[int]) -> None:
    """A worker takes a job each six hours, and a more urgent one comes each time. The wait is bounded by the steps of
    priority between them, whatever comes later."""
    with sessions.begin() as session:
        session.execute(text("TRUNCATE projects CASCADE"))
    projects = Projects(sessions, "A")
    most = max(*others, own)
    waited = timedelta()
    assert projects.submit("A", priority=own, waited=waited) == "A1"
    for turn in range(2 * MAX_PRIORITY + 2):
        projects.submit("A", priority=others[turn % len(others)])
        if projects.take_and_end() == "A1":
            break
        with sessions.begin() as session:  # six hours go by
            session.execute(update(Job).values(queued_at=Job.queued_at - PRIORITY_STEP))
        waited += PRIORITY_STEP
    assert waited <= (most - own) * PRIORITY_STEP


@pytest.mark.integration
def test_of_many_workers_at_once_each_gets_another_job(sessions: Sessions) -> None:
    projects = Projects(sessions, "ABC")
    for letter in "ABC" * 4:
        projects.submit(letter)
    start = threading.Barrier(16)

    def compete() -> str | None:
        start.wait()
        taken = projects.take()
        return taken[0] if taken else None

    with ThreadPoolExecutor(16) as pool:
        taken = [future.result() for future in [pool.submit(compete) for _ in range(16)]]
    assert sorted(name for name in taken if name) == sorted(f"{letter}{n}" for letter in "ABC" for n in range(1, 5))


@pytest.mark.integration
def test_a_job_that_another_is_taking_is_passed_over_without_waiting(sessions: Sessions) -> None:
    projects = Projects(sessions, "A")
    projects.submit("A")
    projects.submit("A")
    with sessions.begin() as session:
        assert job_leases.claim_next(session, worker="w", lease_seconds=60) is not None
        taken = projects.take()
        assert taken is not None
        assert taken[0] == "A2"


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.unit
def test_each_worker_takes_the_next_job_when_it_is_free() -> None:
    ends = [NOON + 3 * HOUR, NOON + HOUR]
    expected = [NOON + hours * HOUR for hours in (1, 3, 3, 5, 5)]
    assert queue.expected_starts(ends, 2 * HOUR, 5) == expected


@pytest.mark.integration
def test_the_expected_start_follows_from_running_jobs_and_how_long_the_latest_took(
    sessions: Sessions, project_id: str
) -> None:
    waiting = queued_job(sessions, project_id)
    with sessions() as session:
        assert queue.positions(session, [waiting])[waiting] == queue.QueuePosition(1, None)
    done, running = (claim(sessions, queued_job(sessions, project_id)) for _ in range(2))
    with sessions.begin() as session:
        job_leases.record(session, running, [], progress={"step": 1}, eta=1800)
        job_leases.succeed(session, done, results=[])
        session.execute(update(Job).where(Job.id == done.job_id).values(claimed_at=Job.finished_at - 2 * HOUR))
    second = queued_job(sessions, project_id)
    with sessions() as session:
        places = queue.positions(session, [waiting, second, running.job_id])
        end = session.scalars(select(Job.estimated_finish).where(Job.id == running.job_id)).one()
    assert end is not None
    assert places == {waiting: queue.QueuePosition(1, end), second: queue.QueuePosition(2, end + 2 * HOUR)}
    with sessions.begin() as session:  # it is late
        session.execute(update(Job).where(Job.id == running.job_id).values(estimated_finish=func.now() - HOUR))
    with sessions() as session:
        start = queue.positions(session, [waiting])[waiting].expected_start
        now = session.scalars(select(func.clock_timestamp())).one()
    assert start is not None
    assert timedelta() <= now - start < timedelta(minutes=1)


@pytest.mark.integration
def test_a_worker_passes_over_what_its_memory_does_not_hold_and_a_larger_one_takes_the_line_as_it_is(
    sessions: Sessions,
) -> None:
    projects = Projects(sessions, "A")
    for needed in (None, 80, 24, 8, 25, 80):
        projects.submit("A", memory_gib=needed)
    assert [projects.take_and_end(memory_gib=24) for _ in range(3)] == ["A1", "A3", "A4"]
    assert projects.take(memory_gib=24) is None
    assert projects.take_and_end(memory_gib=80) == "A2"
    projects.submit("A", memory_gib=8)
    # Small jobs that keep coming do not hold up a large one where a worker holds both.
    assert [projects.take_and_end(memory_gib=80) for _ in range(3)] == ["A5", "A6", "A7"]


@pytest.mark.integration
def test_the_positions_of_all_are_those_that_each_gets(sessions: Sessions, project_id: str) -> None:
    done, running = (claim(sessions, queued_job(sessions, project_id)) for _ in range(2))
    with sessions() as session:
        assert queue.all_positions(session.connection()) == {}
    waiting = [queued_job(sessions, project_id) for _ in range(3)]
    with sessions() as session:
        unknown = {job_id: queue.QueuePosition(at, None) for at, job_id in enumerate(waiting, 1)}
        assert queue.all_positions(session.connection()) == unknown
    with sessions.begin() as session:
        job_leases.record(session, running, [], progress={"step": 1}, eta=1800)
        job_leases.succeed(session, done, results=[])
    with sessions() as session:
        everyone = queue.all_positions(session.connection())
        assert everyone == queue.positions(session, waiting)
    assert [place.position for place in everyone.values()] == [1, 2, 3]
    assert None not in {place.expected_start for place in everyone.values()}
