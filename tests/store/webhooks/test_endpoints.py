"""The outbox and the queue of webhooks, in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from store.database import Sessions
from store.errors import CursorUnknown, DeliveryNotFound, TooManyWebhooks, WebhookDisabled, WebhookNotFound
from store.files import file_leases
from store.jobs import events, job_leases, jobs
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.tables.webhook import WebhookDelivery
from store.webhooks import delivery_log, endpoints
from store.webhooks.delivery_log import DueDelivery, claim
from store.webhooks.outbox import TYPES
from store.webhooks.signing import SigningKey
from tests.api.polling import until
from tests.conftest import make_tenant
from tests.store.rows import add_file, add_job, queued_job, running_job

pytestmark = pytest.mark.integration
EVERY = tuple(TYPES.values())
KEY = SigningKey(b"a key")


def endpoint(sessions: Sessions, project_id: str, *, wants: tuple[str, ...] = EVERY) -> str:
    with sessions.begin() as session:
        made = endpoints.create(session, project_id, url="https://example.com", events=wants, key_check=KEY.check)
        return made.id


def log(sessions: Sessions, endpoint_id: str) -> list[WebhookDelivery]:
    with sessions() as session:
        return delivery_log.newest_first(session, endpoint_id, after=None, limit=100)


def cancelled(sessions: Sessions, project_id: str) -> str:
    job_id = queued_job(sessions, project_id)
    with sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    return job_id


def claimed(sessions: Sessions, *, limit: int = 10, busy: tuple[str, ...] = ()) -> list[DueDelivery]:
    with sessions.begin() as session:
        return claim(session, limit=limit, lease_seconds=60, busy=busy)


ENDS: dict[str, Callable[[Session, JobLease], object]] = {
    "succeeded": lambda session, owned: job_leases.succeed(session, owned, results=[]),
    "failed": lambda session, owned: job_leases.fail(session, owned, code="c", message="m"),
    "cancelled": lambda session, owned: (
        jobs.cancel(session, owned.project_id, owned.job_id),
        job_leases.give_back(session, owned, ""),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_running_job_leaves_one_delivery(sessions: Sessions, project_id: str, end: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    owned = running_job(sessions, project_id)
    assert log(sessions, endpoint_id) == []
    with sessions.begin() as session:
        ENDS[end](session, owned)
    [delivery] = log(sessions, endpoint_id)
    assert (delivery.type, delivery.job_id, delivery.attempts) == (f"fine_tuning.job.{end}", owned.job_id, 0)
    body = json.loads(delivery.body)
    assert body == {
        "id": delivery.event_id,
        "object": "event",
        "created_at": body["created_at"],
        "type": delivery.type,
        "data": {"id": owned.job_id},
    }


def test_a_job_that_no_worker_has_leaves_one_too(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    file = add_file(sessions, project_id, status="uploaded")
    refused, never_ran = add_job(sessions, file), cancelled(sessions, project_id)
    with sessions.begin() as session:
        owned = file_leases.claim(session, file.id, lease_seconds=60)
        assert owned is not None
        file_leases.finish(session, owned, status="error", details="bad")
        jobs.files_ready(session, file.id)
    reported = {(delivery.job_id, delivery.type) for delivery in log(sessions, endpoint_id)}
    assert reported == {(refused, "fine_tuning.job.failed"), (never_ran, "fine_tuning.job.cancelled")}


def test_a_job_that_goes_on_leaves_none(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    owned = running_job(sessions, project_id)
    with sessions.begin() as session:
        # An event that says more than is so.
        job_leases.record(session, owned, [NewEvent("m", data={"status": "succeeded"})])
        job_leases.crash(session, owned, code="c", message="m", crash_cap=3)
    assert log(sessions, endpoint_id) == []


def test_an_end_that_is_rolled_back_leaves_none(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    owned = running_job(sessions, project_id)
    with sessions() as session:
        job_leases.succeed(session, owned, results=[])
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 1
        session.rollback()
    assert log(sessions, endpoint_id) == []


def test_only_the_projects_endpoints_that_want_the_event_and_are_not_disabled_receive_it(
    sessions: Sessions, project_id: str
) -> None:
    wants = endpoint(sessions, project_id)
    other = endpoint(sessions, project_id, wants=("fine_tuning.job.failed",))
    disabled = endpoint(sessions, project_id)
    stranger = endpoint(sessions, make_tenant(sessions, "second").id)
    second = endpoint(sessions, project_id)
    with sessions.begin() as session:
        endpoints.disable(session, disabled)
    cancelled(sessions, project_id)
    received = {one: [d.event_id for d in log(sessions, one)] for one in (wants, second, other, disabled, stranger)}
    assert [len(ids) for ids in received.values()] == [1, 1, 0, 0, 0]
    assert received[wants] == received[second]  # the same event


def test_a_job_never_ends_twice_for_an_endpoint(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    job_id = cancelled(sessions, project_id)
    with sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    assert len(log(sessions, endpoint_id)) == 1


def wait_for_a_waiter(session: Session, other: Future[Any]) -> None:
    """Until another transaction waits for a lock."""
    until(lambda: bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))) or other.done())
    assert not other.done()


def test_deleting_an_endpoint_waits_for_a_job_that_ends(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    owned = running_job(sessions, project_id)

    def remove() -> None:
        with sessions.begin() as session:
            endpoints.remove(session, project_id, endpoint_id)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            job_leases.succeed(session, owned, results=[])
            removing = pool.submit(remove)
            wait_for_a_waiter(session, removing)
        removing.result()
    assert log(sessions, endpoint_id) == []


def test_a_job_ends_well_while_an_endpoint_is_deleted(sessions: Sessions, project_id: str) -> None:
    endpoint_id, other = endpoint(sessions, project_id), endpoint(sessions, project_id)
    owned = running_job(sessions, project_id)

    def end() -> None:
        with sessions.begin() as session:
            job_leases.succeed(session, owned, results=[])

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            endpoints.remove(session, project_id, endpoint_id)
            ending = pool.submit(end)
            wait_for_a_waiter(session, ending)
        ending.result()
    assert (len(log(sessions, endpoint_id)), len(log(sessions, other))) == (0, 1)


def test_a_claim_takes_one_of_each_endpoint_and_none_of_the_busy(sessions: Sessions, project_id: str) -> None:
    first, second = endpoint(sessions, project_id), endpoint(sessions, project_id)
    made = [cancelled(sessions, project_id) for _ in range(3)]
    [one] = claimed(sessions, busy=(second,))
    assert (one.endpoint_id, one.attempt, json.loads(one.body)["data"]["id"]) == (first, 1, made[0])
    assert {due.endpoint_id for due in claimed(sessions)} == {first, second}
    assert len(claimed(sessions, limit=1)) == 1


def test_of_those_that_claim_at_once_each_gets_another(sessions: Sessions, project_id: str) -> None:
    for _ in range(8):
        endpoint(sessions, project_id)
    cancelled(sessions, project_id)
    start = Barrier(4)

    def take(_: int) -> list[DueDelivery]:
        start.wait()
        return [due for _ in range(6) for due in claimed(sessions, limit=2)]

    with ThreadPoolExecutor(4) as pool:
        ids = [due.id for taken in pool.map(take, range(4)) for due in taken]
    assert len(ids) == len(set(ids)) == 8


SLOW_CLOCK = """
CREATE SCHEMA slow;
CREATE FUNCTION slow.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1);
    RETURN pg_catalog.clock_timestamp();
END $$;
"""


@pytest.fixture
def slow_clock(sessions: Sessions) -> Iterator[None]:
    """A schema whose clock stands still while somebody holds advisory lock 1."""
    with sessions.begin() as session:
        session.execute(text(SLOW_CLOCK))
    yield
    with sessions.begin() as session:
        session.execute(text("DROP SCHEMA slow CASCADE"))


@pytest.mark.usefixtures("slow_clock")
def test_what_another_claims_between_the_query_and_the_claim_is_not_claimed_again(
    sessions: Sessions, project_id: str
) -> None:
    """The later sender sees the delivery due, and reads the clock while the earlier one claims and commits."""
    endpoint(sessions, project_id)
    cancelled(sessions, project_id)

    def claim_slowly() -> list[DueDelivery]:
        with sessions.begin() as session:
            session.execute(text("SET LOCAL search_path = slow, pg_catalog, public"))
            return claim(session, limit=10, lease_seconds=60)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as holding:
            holding.execute(select(func.pg_advisory_xact_lock(1)))
            late = pool.submit(claim_slowly)
            wait_for_a_waiter(holding, late)
            [taken] = claimed(sessions)
        assert late.result() == []
    assert taken.attempt == 1


def test_what_a_sender_took_and_never_ended_is_due_again(sessions: Sessions, project_id: str) -> None:
    endpoint(sessions, project_id)
    cancelled(sessions, project_id)
    with sessions.begin() as session:
        [first] = claim(session, limit=1, lease_seconds=-1)
    [again] = claimed(sessions)
    assert (again.id, again.event_id, again.body, again.attempt) == (first.id, first.event_id, first.body, 2)
    assert claimed(sessions) == []
    with sessions.begin() as session:  # the first sender comes back, and its write has no effect
        delivery_log.failed(session, first, status=500, error="late", again_in=None)
        assert session.get_one(WebhookDelivery, first.id).next_attempt_at is not None
        delivery_log.delivered(session, first, status=200)  # but that it arrived, counts
    [delivery] = log(sessions, again.endpoint_id)
    assert delivery.next_attempt_at is None
    assert delivery.delivered_at is not None


def test_the_log_is_stored_for_a_month_and_what_is_to_be_sent_for_ever(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    old, pending, young = (cancelled(sessions, project_id) for _ in range(3))
    ago = func.now() - delivery_log.RETENTION - timedelta(minutes=1)
    with sessions.begin() as session:
        session.execute(
            update(WebhookDelivery).where(WebhookDelivery.job_id.in_([old, pending])).values(created_at=ago)
        )
        session.execute(
            update(WebhookDelivery).where(WebhookDelivery.job_id.in_([old, young])).values(next_attempt_at=None)
        )
        delivery_log.delete_expired(session)
    assert {delivery.job_id for delivery in log(sessions, endpoint_id)} == {pending, young}


def test_an_event_may_carry_a_status_of_its_own(sessions: Sessions, project_id: str) -> None:
    owned = running_job(sessions, project_id)
    with sessions.begin() as session:
        events.append(session, owned.job_id, [NewEvent("m", data={"status": ["not", "hashable"]})])


def test_a_project_has_so_many_endpoints_at_most_however_many_are_made_at_once(
    sessions: Sessions, project_id: str
) -> None:
    def make(_: int) -> bool:
        try:
            endpoint(sessions, project_id)
        except TooManyWebhooks:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(endpoints.MAX_ENDPOINTS + 8))) == endpoints.MAX_ENDPOINTS


def test_a_webhook_of_another_project_does_not_exist(sessions: Sessions, project_id: str) -> None:
    endpoint_id, other_id = endpoint(sessions, project_id), make_tenant(sessions, "second").id
    acts: tuple[Callable[[Session, str, str], object], ...] = (
        endpoints.get,
        lambda session, project, one: endpoints.rotate(session, project, one, key_check=KEY.check),
        endpoints.remove,
    )
    for act in acts:
        with sessions.begin() as session:
            for project, requested in ((other_id, endpoint_id), (project_id, "webhook-none")):
                with pytest.raises(WebhookNotFound, match=requested):
                    act(session, project, requested)
            act(session, project_id, endpoint_id)


def test_webhooks_and_their_deliveries_are_listed_page_by_page(sessions: Sessions, project_id: str) -> None:
    strangers = endpoint(sessions, make_tenant(sessions, "second").id)
    made = [endpoint(sessions, project_id) for _ in range(3)][::-1]
    sent = [cancelled(sessions, project_id) for _ in range(3)][::-1]
    with sessions() as session:
        pages = [endpoints.newest_first(session, project_id, after=after, limit=2) for after in (None, made[1])]
        assert [[one.id for one in page] for page in pages] == [made[:2], made[2:]]
        first = delivery_log.newest_first(session, made[0], after=None, limit=2)
        rest = delivery_log.newest_first(session, made[0], after=first[1].id, limit=2)
        assert [one.job_id for one in (*first, *rest)] == sent
        with pytest.raises(CursorUnknown, match=strangers):
            endpoints.newest_first(session, project_id, after=strangers, limit=2)
        with pytest.raises(CursorUnknown, match=first[0].id):
            delivery_log.newest_first(session, made[1], after=first[0].id, limit=2)


def test_a_delivery_is_sent_again_on_request_unless_its_webhook_is_disabled(
    sessions: Sessions, project_id: str
) -> None:
    first, second = endpoint(sessions, project_id), endpoint(sessions, project_id)
    cancelled(sessions, project_id)
    taken = {due.endpoint_id: due for due in claimed(sessions)}
    with sessions.begin() as session:
        delivery_log.delivered(session, taken[first], status=200)
        delivery_log.give_up_all(session, second, error="gone")
    ends = {one: (log(sessions, one)[0].next_attempt_at, log(sessions, one)[0].last_error) for one in taken}
    assert ends == {first: (None, None), second: (None, "gone")}
    assert claimed(sessions) == []
    with sessions.begin() as session:
        mine = endpoints.get(session, project_id, first)
        with pytest.raises(DeliveryNotFound, match=taken[second].id):
            delivery_log.retry(session, mine, taken[second].id)
        assert delivery_log.retry(session, mine, taken[first].id).attempts == 1
    [again] = claimed(sessions)
    assert (again.id, again.attempt) == (taken[first].id, 2)
    with sessions.begin() as session:
        endpoints.disable(session, first)
    with sessions() as session, pytest.raises(WebhookDisabled, match=first):
        delivery_log.retry(session, endpoints.get(session, project_id, first), taken[first].id)
