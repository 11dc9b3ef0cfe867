from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from store.hints import Hints
from store.leases import HEAD
from store.settings import Settings
from store.tables.idempotency import IdempotencyKey
from store.tables.job import Job
from store.tables.project import ApiKey
from store.tables.webhook import WebhookDelivery
from store.tenants import idempotency
from store.webhooks import delivery_log
from tests import servers
from tests.store.rows import add_file, queued_job, read_job, running_job
from tests.worker.conftest import reread
from tests.worker.webhook_steps import cancelled, endpoint, log
from worker.dispatcher.dispatcher import LOCK, Due, tick
from worker.resources import Resources

pytestmark = pytest.mark.integration


def test_a_tick_publishes_what_was_never_published_and_not_again_at_once(
    resources: Resources, project_id: str, broker_url: str
) -> None:
    job_id = queued_job(resources.sessions, project_id)
    file = add_file(resources.sessions, project_id, status="uploaded")
    patient = Resources(
        resources.settings.model_copy(update={"republish_seconds": 60}),
        resources.sessions,
        resources.blobs,
        resources.hints,
        "dispatcher",
    )
    assert tick(patient) == Due([job_id], [file.id])
    assert tick(patient) == Due([], [])
    with servers.broker_client(broker_url) as client:
        assert (client.llen("train"), client.llen("intake")) == (1, 1)
    assert read_job(resources.sessions, job_id).published_at is not None
    assert reread(resources, file).published_at is not None


def test_a_tick_takes_back_an_expired_lease_and_publishes_the_job(resources: Resources, project_id: str) -> None:
    owned = running_job(resources.sessions, project_id, lease_seconds=-1)
    alive = running_job(resources.sessions, project_id)
    assert tick(resources).jobs == [owned.job_id]
    assert read_job(resources.sessions, owned.job_id).status == "queued"
    assert read_job(resources.sessions, alive.job_id).status == "running"


def test_while_one_dispatcher_acts_another_changes_and_publishes_nothing(
    resources: Resources, project_id: str, broker_url: str
) -> None:
    expired = running_job(resources.sessions, project_id, lease_seconds=-1)
    waiting = queued_job(resources.sessions, project_id)
    with resources.sessions.begin() as acting:
        assert acting.scalar(select(func.pg_try_advisory_xact_lock(LOCK)))
        assert tick(resources) == Due([], [])
        assert read_job(resources.sessions, expired.job_id).status == "running"
        with servers.broker_client(broker_url) as client:
            assert client.llen("train") == 0
    assert tick(resources).jobs == [expired.job_id, waiting]


def test_a_tick_forgets_the_answers_and_the_deliveries_whose_time_is_over(
    resources: Resources, project_id: str
) -> None:
    webhook_id = endpoint(resources, project_id, "https://example.com")
    with resources.sessions.begin() as session:
        key_id = session.scalars(select(ApiKey.id)).one()
        for name in ("old", "young"):
            idempotency.save(session, key_id, name, request="0" * 64, answer={})
    for _ in range(2):
        cancelled(resources, project_id)
    old, young = reversed(log(resources, webhook_id))
    with resources.sessions.begin() as session:
        past = func.now() - delivery_log.RETENTION - timedelta(minutes=1)
        session.execute(update(WebhookDelivery).values(next_attempt_at=None))
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == old.id).values(created_at=past))
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == "old").values(created_at=past))
    tick(resources)
    assert [one.id for one in log(resources, webhook_id)] == [young.id]
    with resources.sessions() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["young"]


def test_a_broker_that_is_down_delays_a_hint_and_loses_nothing(
    resources: Resources, settings: Settings, project_id: str
) -> None:
    jobs = [queued_job(resources.sessions, project_id) for _ in range(3)]
    with servers.valkey() as url:
        hints = Hints(url)
        assert hints.train(jobs[0])
    assert not hints.train(jobs[0])  # over the connection it had
    unreachable = Resources(settings, resources.sessions, resources.blobs, hints, "dispatcher")
    started = time.monotonic()
    assert tick(unreachable).jobs == jobs
    assert time.monotonic() - started < 5  # one try, not one a job
    assert [read_job(resources.sessions, job_id).status for job_id in jobs] == ["queued"] * 3
    # After republish_seconds they are due again, and the broker is back.
    with resources.sessions.begin() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET published_at = published_at - interval '1 minute'")
    assert tick(resources).jobs == jobs
    with servers.broker_client(str(settings.broker_url)) as client:
        assert client.llen("train") == 3


def test_hints_do_not_pile_up_while_no_worker_takes_them(
    resources: Resources, project_id: str, broker_url: str
) -> None:
    jobs = [queued_job(resources.sessions, project_id) for _ in range(3)]
    files = [add_file(resources.sessions, project_id, status="uploaded").id for _ in range(2)]

    def due_again() -> None:
        with resources.sessions.begin() as session:
            connection = session.connection()
            connection.exec_driver_sql("UPDATE jobs SET published_at = published_at - interval '1 minute'")
            connection.exec_driver_sql("UPDATE files SET published_at = published_at - interval '1 minute'")

    with servers.broker_client(broker_url) as client:
        for _ in range(20):
            assert tick(resources) == Due(jobs, files)
            due_again()
        assert (client.llen("train"), client.llen("intake")) == (3, 2)
        client.lpop("train")  # lost, as by a worker that died with it
        assert tick(resources) == Due(jobs, files)
        assert client.llen("train") == 5
        due_again()
        client.flushall()
        assert tick(resources) == Due(jobs, files)
        assert (client.llen("train"), client.llen("intake")) == (3, 2)


def test_of_a_long_queue_a_tick_marks_sends_and_reports_the_head(
    resources: Resources, project_id: str, broker_url: str
) -> None:
    waiting = [queued_job(resources.sessions, project_id) for _ in range(HEAD + 20)]
    large = queued_job(resources.sessions, project_id)  # the last, and alone in its queue
    with resources.sessions.begin() as session:
        session.get_one(Job, large).memory_gib = 20
    patient = replace(resources, settings=resources.settings.model_copy(update={"republish_seconds": 60}))
    due = tick(patient)
    assert due.jobs == [*waiting[:HEAD], large]
    with resources.sessions() as session:
        marked = session.scalars(select(func.count()).where(Job.published_at.is_not(None))).one()
    assert marked == HEAD + 1
    with servers.broker_client(broker_url) as client:
        assert (client.llen("train"), client.llen("train-24g")) == (HEAD, 1)

    # The rows behind the head get their hints when those before them are taken.
    with resources.sessions.begin() as session:
        session.execute(update(Job).where(Job.id.in_(due.jobs[:50])).values(status="cancelled"))
    assert tick(patient).jobs == waiting[HEAD:]
    assert tick(patient).jobs == []


def test_a_job_that_needs_memory_is_offered_to_the_workers_that_have_it(
    resources: Resources, project_id: str, broker_url: str
) -> None:
    small, large = queued_job(resources.sessions, project_id), queued_job(resources.sessions, project_id)
    with resources.sessions.begin() as session:
        session.get_one(Job, large).memory_gib = 20
    with servers.broker_client(broker_url) as client:
        for _ in range(2):  # while its hint waits there is no second one
            assert tick(resources).jobs == [small, large]
            assert (client.llen("train"), client.llen("train-24g")) == (1, 1)
            with resources.sessions.begin() as session:
                session.connection().exec_driver_sql("UPDATE jobs SET published_at = published_at - interval '1 hour'")
