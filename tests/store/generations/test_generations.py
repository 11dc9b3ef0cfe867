"""Claims, fences and ends of images that were requested."""

from __future__ import annotations

from datetime import timedelta

import pytest

from store import leases
from store.database import Sessions
from store.errors import GenerationNotFound, LeaseLost
from store.generations import generation_leases, generations
from store.generations.generation_leases import GenerationLease
from store.turns import GENERATIONS
from tests.conftest import Tenant
from tests.store.rows import add_generation, read_generation

pytestmark = pytest.mark.integration


def claim(sessions: Sessions, generation_id: str, *, lease_seconds: float = 60) -> GenerationLease | None:
    with sessions.begin() as session:
        return generation_leases.claim(session, generation_id, worker="w", lease_seconds=lease_seconds)


def owned(sessions: Sessions, generation_id: str, *, lease_seconds: float = 60) -> GenerationLease:
    claimed = claim(sessions, generation_id, lease_seconds=lease_seconds)
    assert claimed is not None
    return claimed


@pytest.fixture
def queued(sessions: Sessions, project: Tenant) -> str:
    return add_generation(sessions, project.id)


def test_one_claim_wins_and_its_end_is_the_only_one(sessions: Sessions, queued: str) -> None:
    first = owned(sessions, queued)
    assert (first.attempt, first.spec["prompt"], first.weights) == (1, "a cat", {})
    assert claim(sessions, queued) is None
    with sessions.begin() as session:
        generation_leases.succeed(session, first, result={"images": []})
    row = read_generation(sessions, queued)
    assert (row.status, row.result, row.lease_expires_at) == ("succeeded", {"images": []}, None)
    assert row.finished_at is not None
    assert claim(sessions, queued) is None
    with pytest.raises(LeaseLost), sessions.begin() as session:
        generation_leases.fail(session, first, code="late", message="no")
    with sessions() as session:
        assert generations.ended(session, [queued, "imggen-none"]) == {queued}


def test_a_lower_attempt_writes_nothing_after_a_higher_claim(sessions: Sessions, queued: str) -> None:
    first = owned(sessions, queued, lease_seconds=-1)
    with sessions.begin() as session:
        assert generation_leases.expire(session, crash_cap=3) == [queued]
    second = owned(sessions, queued)
    assert second.attempt == 2
    for write in (
        lambda session: generation_leases.renew(session, first, lease_seconds=60),
        lambda session: generation_leases.succeed(session, first, result={"images": []}),
        lambda session: generation_leases.give_back(session, first),
        lambda session: generation_leases.crash(session, first, code="c", message="m", crash_cap=3),
    ):
        with pytest.raises(LeaseLost), sessions.begin() as session:
            write(session)
    with sessions() as session:
        assert leases.live_attempts(session, GENERATIONS) == {(queued, 2)}


def test_expired_leases_are_taken_back_up_to_the_cap(sessions: Sessions, queued: str) -> None:
    for crashes in (1, 2):
        owned(sessions, queued, lease_seconds=-1)
        with sessions.begin() as session:
            assert generation_leases.expire(session, crash_cap=3) == [queued]
        assert read_generation(sessions, queued).crashes == crashes
    owned(sessions, queued, lease_seconds=-1)
    with sessions.begin() as session:
        assert generation_leases.expire(session, crash_cap=3) == []
    row = read_generation(sessions, queued)
    assert (row.status, (row.error or {})["code"]) == ("failed", "worker_lost")
    assert (row.error or {})["message"].startswith("Gave up after 3 crashes. Worker w stopped renewing")


def test_a_lease_that_lives_is_not_taken_back(sessions: Sessions, queued: str) -> None:
    first = owned(sessions, queued)
    with sessions.begin() as session:
        assert generation_leases.expire(session, crash_cap=3) == []
        generation_leases.renew(session, first, lease_seconds=-1)
        assert generation_leases.expire(session, crash_cap=3) == [queued]


def test_what_a_stopping_worker_gives_back_is_queued_and_no_crash(sessions: Sessions, queued: str) -> None:
    with sessions.begin() as session:
        leases.mark_published(session, GENERATIONS, [queued])
    first = owned(sessions, queued)
    with sessions.begin() as session:
        assert leases.unpublished(session, GENERATIONS, older_than_seconds=0) == []
        generation_leases.give_back(session, first)
        assert leases.unpublished(session, GENERATIONS, older_than_seconds=60) == [queued]
    row = read_generation(sessions, queued)
    assert (row.status, row.crashes, row.attempt) == ("queued", 0, 1)


def test_only_the_owner_finds_it_and_a_retry_finds_it_by_its_request(
    sessions: Sessions, queued: str, project: Tenant, other_project: Tenant
) -> None:
    row = read_generation(sessions, queued)
    with sessions() as session:
        assert generations.get(session, project.id, queued).id == queued
        with pytest.raises(GenerationNotFound):
            generations.get(session, other_project.id, queued)
        minute = timedelta(minutes=1)
        found = generations.by_request(session, row.key_id, row.request_sha256, within=minute)
        assert found is not None
        assert found.id == queued
        assert generations.by_request(session, row.key_id, "1" * 64, within=minute) is None
        assert generations.by_request(session, row.key_id, row.request_sha256, within=timedelta(0)) is None
