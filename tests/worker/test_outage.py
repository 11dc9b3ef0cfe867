"""The database goes away while a trainer runs: every connection is cut and no new one is let in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from tests.api.polling import until
from tests.store.rows import read_events, read_job
from tests.worker.conftest import NewJob, Supervised
from tests.worker.watching import found, states, trainer_of
from worker.resources import Resources

pytestmark = pytest.mark.integration


def phases(resources: Resources, job_id: str) -> list[str]:
    data = [event.data or {} for event in read_events(resources.sessions, job_id)]
    return [reported["phase"] for reported in data if reported.get("event") == "phase"]


@contextmanager
def no_database(postgres_url: str) -> Iterator[None]:
    """From within another database of the cluster."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("ALTER DATABASE worker ALLOW_CONNECTIONS false"))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'worker'"
        connection.execute(text(cut))
        try:
            yield
        finally:
            connection.execute(text("ALTER DATABASE worker ALLOW_CONNECTIONS true"))
    engine.dispose()


def test_a_short_outage_costs_no_event_and_no_trainer(
    resources: Resources, supervised: Supervised, new_job: NewJob, postgres_url: str
) -> None:
    job_id = new_job(steps=12, every=6)
    ended = supervised.run(job_id)
    until(lambda: "caching" in phases(resources, job_id), seconds=90)
    trainer = found(lambda: trainer_of(job_id))
    with no_database(postgres_url):
        checkpoints = resources.settings.work_directory / "attempts" / job_id / "1" / "checkpoints"
        until(lambda: (checkpoints / "step-00000006").exists() or not trainer.is_running(), seconds=30)
    ended.result()
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt) == ("succeeded", 1)
    messages = [event.message for event in read_events(resources.sessions, job_id)]
    assert [message for message in messages if message.startswith("Checkpoint")] == [
        "Checkpoint at step 6.",
        "Checkpoint at step 12.",
    ]
    assert phases(resources, job_id) == [
        *("loading", "caching", "loading", "validating", "training"),
        *("validating", "training", "validating", "validating", "sampling", "exporting"),
    ]


def test_an_outage_longer_than_the_lease_ends_the_trainer_before_another_may_claim(
    resources: Resources, supervised: Supervised, new_job: NewJob, postgres_url: str
) -> None:
    job_id = new_job(steps=100_000)
    ended = supervised.run(job_id)
    until(lambda: "caching" in phases(resources, job_id), seconds=90)
    trainer = found(lambda: trainer_of(job_id))
    expires_at = read_job(resources.sessions, job_id).lease_expires_at
    assert expires_at is not None
    with no_database(postgres_url):
        until(lambda: not trainer.is_running(), seconds=resources.settings.lease_seconds)
        ended.result()
    job = read_job(resources.sessions, job_id)
    assert job.status == "running"  # nothing false was written; the dispatcher takes the job back
    assert states(resources.sessions, job_id) == ["queued", "running"]
    with resources.sessions() as session:
        now = session.scalar(text("SELECT clock_timestamp()"))
    assert now is not None
    assert job.lease_expires_at is not None
    assert now < job.lease_expires_at
