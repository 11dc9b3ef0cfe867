"""What is kept of a request with an idempotency key, for how long, and from whom."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from store.database import Sessions
from store.errors import IdempotencyInFlight, IdempotencyMismatch
from store.tables.idempotency import IdempotencyKey
from store.tables.project import ApiKey
from store.tenants import idempotency

pytestmark = pytest.mark.integration


@pytest.fixture
def key_id(sessions: Sessions, project_id: str) -> str:
    with sessions() as session:
        return session.scalars(select(ApiKey.id).where(ApiKey.project_id == project_id)).one()


def keep(sessions: Sessions, key_id: str, *keys: str) -> None:
    with sessions.begin() as session:
        for key in keys:
            idempotency.save(session, key_id, key, request="a request", answer={"id": key})


def test_a_request_is_answered_as_before_and_another_with_its_key_is_refused(sessions: Sessions, key_id: str) -> None:
    keep(sessions, key_id, "a")
    with sessions() as session:
        assert idempotency.find_answer(session, key_id, "a", request="a request") == {"id": "a"}
        assert idempotency.find_answer(session, key_id, "b", request="a request") is None
        with pytest.raises(IdempotencyMismatch, match="'a'"):
            idempotency.find_answer(session, key_id, "a", request="another request")


def test_while_one_transaction_does_a_request_no_other_does(sessions: Sessions, key_id: str) -> None:
    with sessions() as first, sessions() as second:
        assert idempotency.find_answer(first, key_id, "a", request="a request") is None
        with pytest.raises(IdempotencyInFlight, match="'a'"):
            idempotency.find_answer(second, key_id, "a", request="a request")
        assert idempotency.find_answer(second, key_id, "b", request="a request") is None
        first.rollback()
        assert idempotency.find_answer(second, key_id, "a", request="a request") is None


def test_an_answer_is_stored_for_a_day(sessions: Sessions, key_id: str) -> None:
    keep(sessions, key_id, "young", "old")
    with sessions.begin() as session:
        for key, age in (("young", timedelta(hours=23, minutes=59)), ("old", timedelta(hours=24, minutes=1))):
            aged = update(IdempotencyKey).where(IdempotencyKey.key == key)
            session.execute(aged.values(created_at=func.now() - age))
        idempotency.delete_expired(session)
        assert list(session.scalars(select(IdempotencyKey.key).where(IdempotencyKey.key_id == key_id))) == ["young"]
