"""The lease and its fence: one owner at a time, and nothing written by anybody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import leases, turns
from store.database import Sessions
from store.errors import LeaseLost
from store.files import file_leases
from store.files.files import NewFile
from store.job_status import TERMINAL, JobStatus, RequestedAction
from store.jobs import job_leases, jobs
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.ops import service_metrics
from store.tables.base import Json
from store.tables.file import File
from store.tables.job import Checkpoint, Job, JobEvent
from store.turns import FILES, JOBS
from tests.store.rows import SPEC, add_file, claim, queued_job, read_events, read_job, running_job

pytestmark = pytest.mark.integration


def expire_lease(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        past = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=past))


def expire(sessions: Sessions, *, crash_cap: int = 3) -> list[str]:
    with sessions.begin() as session:
        return job_leases.expire(session, crash_cap=crash_cap)


def test_of_twenty_claims_at_once_one_wins_and_each_claim_gets_a_higher_attempt(
    sessions: Sessions, project_id: str
) -> None:
    job_id = queued_job(sessions, project_id)
    for expected in (1, 2, 3):
        start = threading.Barrier(20)

        def compete(start: threading.Barrier = start) -> JobLease | None:
            start.wait()
            with sessions.begin() as session:
                return job_leases.claim(session, job_id, worker="w", lease_seconds=60)

        with ThreadPoolExecutor(20) as pool:
            results = [future.result() for future in [pool.submit(compete) for _ in range(20)]]
        winners = [won for won in results if won is not None]
        assert [won.attempt for won in winners] == [expected]
        with sessions.begin() as session:
            job_leases.give_back(session, winners[0], "Again.")
    assert [event.message for event in read_events(sessions, job_id)].count("Started.") == 3


WRITES: dict[str, Callable[[Session, JobLease], object]] = {
    "renew": lambda session, owned: job_leases.renew(session, owned, lease_seconds=1),
    "record": lambda session, owned: job_leases.record(session, owned, [NewEvent("n")], progress={"step": 1}, eta=1),
    "add_checkpoint": lambda session, owned: job_leases.add_checkpoint(session, owned, step=1, metrics={}, manifest={}),
    "succeed": lambda session, owned: job_leases.succeed(
        session, owned, results=[NewFile(owned.project_id, "a", "fine-tune-results", 1, "1" * 64)]
    ),
    "fail": lambda session, owned: job_leases.fail(session, owned, code="c", message="m"),
    "give_back": lambda session, owned: job_leases.give_back(session, owned, "m"),
    "crash": lambda session, owned: job_leases.crash(session, owned, code="c", message="m", crash_cap=3),
}


def everything(sessions: Sessions) -> list[object]:
    with sessions() as session:
        counts = [session.scalar(select(func.count()).select_from(table)) for table in (JobEvent, Checkpoint, File)]
        return [*counts, session.execute(select(Job.__table__)).all()]


@pytest.mark.parametrize("name", WRITES)
def test_after_the_lease_moved_on_every_write_is_refused_and_changes_nothing(
    sessions: Sessions, project_id: str, name: str
) -> None:
    stale = running_job(sessions, project_id)
    expire_lease(sessions, stale.job_id)
    assert expire(sessions) == [stale.job_id]
    fresh = claim(sessions, stale.job_id)
    assert fresh.attempt == stale.attempt + 1
    before = everything(sessions)
    with pytest.raises(LeaseLost), sessions.begin() as session:
        WRITES[name](session, stale)
    assert everything(sessions) == before
    with sessions.begin() as session:  # the owner's same write goes through
        WRITES[name](session, fresh)
    assert everything(sessions) != before


ENDS = ("succeed", "fail", "give_back", "crash")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", WRITES)
def test_an_attempt_that_has_ended_writes_nothing_more(
    sessions: Sessions, project_id: str, end: str, name: str
) -> None:
    """Its number is still the job's: a late heartbeat must not give a lease to a job that nobody runs."""
    owned = running_job(sessions, project_id)
    with sessions.begin() as session:
        WRITES[end](session, owned)
    before = everything(sessions)
    with pytest.raises(LeaseLost), sessions.begin() as session:
        WRITES[name](session, owned)
    assert everything(sessions) == before


@pytest.mark.parametrize("end", ["give_back", "crash"])
def test_a_job_that_is_queued_again_needs_a_hint_at_once_and_goes_to_the_end_of_its_line(
    sessions: Sessions, project_id: str, end: str
) -> None:
    owned = running_job(sessions, project_id)
    other = queued_job(sessions, project_id)
    with sessions.begin() as session:
        leases.mark_published(session, JOBS, [owned.job_id, other])
        WRITES[end](session, owned)
    with sessions() as session:
        assert leases.unpublished(session, JOBS, older_than_seconds=60) == [owned.job_id]
    again, before = (read_job(sessions, job_id).queued_at for job_id in (owned.job_id, other))
    assert again is not None
    assert before is not None
    assert again > before


def test_a_checkpoint_without_a_measurement_goes_when_the_next_one_stands_and_no_other_does(
    sessions: Sessions, project_id: str
) -> None:
    owned, another = running_job(sessions, project_id), running_job(sessions, project_id)
    measured = {"valid_loss": 0.5}
    for claimed, steps in ((another, {1: {}}), (owned, {2: measured, 3: {}, 4: measured, 5: {}, 6: {}})):
        for step, metrics in steps.items():
            with sessions.begin() as session:
                job_leases.add_checkpoint(session, claimed, step=step, metrics=metrics, manifest={})
    with sessions() as session:
        left = {
            claimed: [one.step for one in jobs.checkpoints(session, claimed.job_id, after=None, limit=10)]
            for claimed in (owned, another)
        }
    assert left == {owned: [6, 4, 2], another: [1]}


def test_a_job_goes_on_from_its_furthest_checkpoint_and_of_two_from_the_later_attempts(
    sessions: Sessions, project_id: str
) -> None:
    first = running_job(sessions, project_id)
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, first, step=6, metrics={"valid_loss": 1.0}, manifest={})
        job_leases.give_back(session, first, "Stopped.")
    second = claim(sessions, first.job_id)
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, second, step=3, metrics={"valid_loss": 1.0}, manifest={})
        latest = job_leases.latest_checkpoint(session, first.job_id)
        assert latest is not None
        assert (latest.step, latest.attempt) == (6, 1)
        job_leases.add_checkpoint(session, second, step=6, metrics={"valid_loss": 1.0}, manifest={})
        latest = job_leases.latest_checkpoint(session, first.job_id)
        assert latest is not None
        assert (latest.step, latest.attempt) == (6, 2)


def test_attempts_that_may_be_at_work_are_those_of_running_jobs_and_of_files_that_are_read(
    sessions: Sessions, project_id: str
) -> None:
    running, returned = running_job(sessions, project_id), running_job(sessions, project_id)
    read, waiting = (add_file(sessions, project_id, status="uploaded") for _ in range(2))
    with sessions.begin() as session:
        job_leases.give_back(session, returned, "Stopped.")
        owned = file_leases.claim(session, read.id, lease_seconds=60)
        assert owned is not None
        assert leases.live_attempts(session, JOBS, FILES) == {(running.job_id, 1), (read.id, owned.attempt)}
        file_leases.give_back(session, owned)
        assert leases.live_attempts(session, JOBS, FILES) == {(running.job_id, 1)}
    assert waiting.id != read.id


def test_a_checkpoint_written_twice_is_one_checkpoint_with_one_event(sessions: Sessions, project_id: str) -> None:
    owned = running_job(sessions, project_id)
    for _ in range(2):
        with sessions.begin() as session:
            job_leases.add_checkpoint(session, owned, step=7, metrics={"step": 7}, manifest={"a": {"bytes": 1}})
    with sessions() as session:
        [checkpoint] = jobs.checkpoints(session, owned.job_id, after=None, limit=10)
        latest = job_leases.latest_checkpoint(session, owned.job_id)
    assert latest is not None
    assert (latest.id, checkpoint.step) == (checkpoint.id, 7)
    assert [event.message for event in read_events(sessions, owned.job_id)].count("Checkpoint at step 7.") == 1


def test_an_expired_lease_queues_the_job_until_the_crash_cap_and_then_fails_it(
    sessions: Sessions, project_id: str
) -> None:
    job_id = queued_job(sessions, project_id)
    outcomes = []
    for _ in range(3):
        claim(sessions, job_id)
        assert expire(sessions) == []  # the lease is still good
        expire_lease(sessions, job_id)
        outcomes.append((expire(sessions), read_job(sessions, job_id).status))
    assert outcomes == [([job_id], "queued"), ([job_id], "queued"), ([], "failed")]
    job = read_job(sessions, job_id)
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "Gave up after 3 crashes. Worker w1 stopped renewing its lease on attempt 3." in job.error["message"]
    assert job.finished_at is not None


@pytest.mark.parametrize(("ask", "status"), [(jobs.cancel, "cancelled"), (jobs.pause, "paused")])
@pytest.mark.parametrize("end", ["give_back", "crash", "last crash", "expire"])
def test_a_request_is_not_lost_when_the_worker_ends_before_it_has_seen_it(
    sessions: Sessions, project_id: str, end: str, ask: Callable[[Session, str, str], Job], status: str
) -> None:
    owned = running_job(sessions, project_id)
    with sessions.begin() as session:
        assert ask(session, project_id, owned.job_id).status == JobStatus.RUNNING
    cap = 1 if end == "last crash" else 3
    if end == "expire":
        expire_lease(sessions, owned.job_id)
        assert expire(sessions, crash_cap=cap) == []
    else:
        with sessions.begin() as session:
            if end == "give_back":
                job_leases.give_back(session, owned, "Stops.")
            else:
                job_leases.crash(session, owned, code="c", message="m", crash_cap=cap)
    assert read_job(sessions, owned.job_id).status == status


def test_a_withdrawn_pause_queues_the_job_again(sessions: Sessions, project_id: str) -> None:
    owned = running_job(sessions, project_id)
    for act in (jobs.pause, jobs.resume):
        with sessions.begin() as session:
            act(session, project_id, owned.job_id)
    with sessions.begin() as session:
        assert job_leases.give_back(session, owned, "Stopped.") is JobStatus.QUEUED


def test_a_cancel_outlasts_a_later_pause_and_the_heartbeat_reports_it(sessions: Sessions, project_id: str) -> None:
    owned = running_job(sessions, project_id)
    for act in (jobs.pause, jobs.cancel, jobs.pause):
        with sessions.begin() as session:
            act(session, project_id, owned.job_id)
    with sessions.begin() as session:
        assert job_leases.renew(session, owned, lease_seconds=60) is RequestedAction.CANCEL


def test_cancel_against_finish_leaves_exactly_one_terminal_state(sessions: Sessions, project_id: str) -> None:
    endings = {"succeeded": 0, "cancelled": 0}
    for round_ in range(40):
        owned = running_job(sessions, project_id)
        start = threading.Barrier(2)

        def finish(owned: JobLease = owned, start: threading.Barrier = start, succeed: bool = round_ % 2 == 0) -> None:
            start.wait()
            with sessions.begin() as session:
                if succeed:
                    job_leases.succeed(session, owned, results=[])
                else:
                    job_leases.give_back(session, owned, "Stopped.")

        def cancel(owned: JobLease = owned, start: threading.Barrier = start) -> None:
            start.wait()
            with sessions.begin() as session:
                job = session.scalars(select(Job).where(Job.id == owned.job_id).with_for_update()).one()
                if job.status not in TERMINAL:
                    jobs.cancel(session, project_id, owned.job_id)

        with ThreadPoolExecutor(2) as pool:
            for future in (pool.submit(finish), pool.submit(cancel)):
                future.result()
        status = read_job(sessions, owned.job_id).status
        reported = [(event.data or {}).get("status") for event in read_events(sessions, owned.job_id)]
        assert [state for state in reported if state in TERMINAL] == [status]
        endings[status] += 1
    assert endings == {"succeeded": 20, "cancelled": 20}


def test_success_makes_result_files_and_names_the_model(sessions: Sessions, project_id: str) -> None:
    owned = running_job(sessions, project_id)
    adapter = NewFile(project_id, "pytorch_lora_weights.safetensors", "fine-tune-results", 5, "a" * 64)
    with sessions.begin() as session:
        [file_id] = job_leases.succeed(session, owned, results=[adapter])
    job = read_job(sessions, owned.job_id)
    assert job.result_files == [file_id]
    assert job.fine_tuned_model == f"ft:tiny:test:{job.id.removeprefix('ftjob-')}"


def test_only_claimed_rows_count_as_live(sessions: Sessions, project_id: str) -> None:
    queued_job(sessions, project_id)
    owned = running_job(sessions, project_id)
    with sessions() as session:
        assert leases.live_attempts(session, JOBS, FILES) == {(owned.job_id, 1)}


def counts(sessions: Sessions) -> dict[str, int]:
    with sessions() as session:
        return {
            name: value for (name, queue), value in service_metrics.read(session).counters.items() if queue == "train"
        }


COUNTED: dict[str, dict[str, int]] = {
    "renew": {"renewals": 1},
    "record": {},
    "add_checkpoint": {},
    "succeed": {},
    "fail": {},
    "give_back": {"requeues": 1},
    "crash": {"crashes": 1, "requeues": 1},
}


@pytest.mark.parametrize("name", WRITES)
def test_each_claim_and_what_follows_it_is_counted(sessions: Sessions, project_id: str, name: str) -> None:
    job_id = queued_job(sessions, project_id)
    before = counts(sessions)
    owned = claim(sessions, job_id)
    with sessions.begin() as session:
        WRITES[name](session, owned)
    after = counts(sessions)
    assert {what: n - before.get(what, 0) for what, n in after.items() if n != before.get(what, 0)} == {
        "claims": 1,
        **COUNTED[name],
    }


def test_a_worker_passes_over_so_many_jobs_that_it_cannot_read_and_no_more(
    sessions: Sessions, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_PASSED_OVER", 3)
    queued = [queued_job(sessions, project_id) for _ in range(4)]

    def take(unreadable: list[str]) -> tuple[JobLease | None, list[str]]:
        shown: list[str] = []

        def readable(job_id: str, spec: Json) -> bool:
            assert spec == SPEC
            shown.append(job_id)
            return job_id not in unreadable

        with sessions() as session:  # rolled back
            return job_leases.claim_next(session, worker="w", lease_seconds=60, readable=readable), shown

    assert take(queued[:3]) == (None, queued[:3])
    assert take(queued[:2]) == (JobLease(queued[2], project_id, 1), queued[:3])


def test_a_sample_is_a_file_and_an_event_written_once(sessions: Sessions, project_id: str) -> None:
    owned = running_job(sessions, project_id)
    grid = NewFile(project_id, "samples.png", "fine-tune-results", 5, "a" * 64)
    reported = NewEvent("Samples.", data={"file_id": grid.id})
    for _ in range(2):
        with sessions.begin() as session:
            job_leases.add_sample(session, owned, grid, reported)
    with sessions() as session:
        file = session.get_one(File, grid.id)
    assert (file.project_id, file.filename, file.status, file.sha256) == (
        project_id,
        "samples.png",
        "processed",
        "a" * 64,
    )
    assert [event.data for event in read_events(sessions, owned.job_id) if event.message == "Samples."] == [
        reported.data
    ]
