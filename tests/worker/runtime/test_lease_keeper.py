from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from store.errors import LeaseLost
from store.job_status import RequestedAction
from tests.api.polling import until
from worker.runtime import lease_keeper
from worker.runtime.lease_keeper import LeaseKeeper, ended_when_lost, released_on_stop, renewing

pytestmark = pytest.mark.unit


def test_a_heartbeat_brings_the_users_request() -> None:
    with renewing(
        lambda: RequestedAction.PAUSE, claimed_at=time.monotonic(), lease_seconds=60, heartbeat_seconds=0.01
    ) as keeper:
        until(lambda: keeper.requested is RequestedAction.PAUSE)
        assert not keeper.lost


def test_a_refused_renewal_loses_the_lease_at_once() -> None:
    def refuse() -> None:
        raise LeaseLost("job", 1)

    with renewing(refuse, claimed_at=time.monotonic(), lease_seconds=600, heartbeat_seconds=0.01) as keeper:
        until(lambda: keeper.lost)


def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_expires() -> None:
    def unreachable() -> None:
        raise OperationalError("UPDATE", {}, ConnectionError("down"))

    lease = 2.0  # seconds: a fifth of it is more than a busy machine delays a thread
    started = time.monotonic()
    with renewing(unreachable, claimed_at=started, lease_seconds=lease, heartbeat_seconds=0.01) as keeper:
        assert not keeper.lost
        until(lambda: keeper.lost)
    assert 0.8 * lease <= time.monotonic() - started < lease


def test_time_that_passed_before_the_claim_was_answered_counts() -> None:
    with renewing(lambda: None, claimed_at=time.monotonic() - 59, lease_seconds=60, heartbeat_seconds=60) as keeper:
        assert keeper.lost


class Clock:
    """In place of ``time``: it stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("answer_takes", "lost"), [(10.0, False), (50.0, True)])
def test_a_lease_counts_from_the_question_and_not_from_the_answer(
    monkeypatch: pytest.MonkeyPatch, answer_takes: float, lost: bool
) -> None:
    """The database may have set the expiry just after it was queried, and have answered much later."""
    clock = Clock()
    monkeypatch.setattr(lease_keeper, "time", clock)

    def renew() -> None:
        clock.now += answer_takes
        keeper.stop()

    keeper = LeaseKeeper(renew, claimed_at=clock.now, lease_seconds=60, heartbeat_seconds=0)
    keeper.run()
    assert keeper.lost == lost
    clock.now = 1000.0 + 60 * lease_keeper.TRUSTED_PART + 0.001
    assert keeper.lost


def test_a_lost_lease_ends_the_trainer_while_its_supervisor_hangs() -> None:
    ended, hang = threading.Event(), threading.Event()

    def renew() -> None:
        hang.wait(10)  # a write to a database that fell silent

    with renewing(renew, claimed_at=time.monotonic(), lease_seconds=0.2, heartbeat_seconds=0.01) as keeper:
        with ended_when_lost(keeper, ended.set):
            assert ended.wait(5)
        hang.set()


def test_what_is_to_be_released_is_released_while_its_owner_is_busy() -> None:
    released = threading.Event()
    with released_on_stop(lambda: True, released.set):
        assert released.wait(10)


def break_off(released: list[str], after: int) -> None:
    """As soon as so much was released meanwhile."""
    until(lambda: len(released) == after)
    raise LeaseLost("file-1", 1)


@pytest.mark.parametrize("after", [0, 1])
def test_an_owner_that_learns_of_the_stop_releases_too_and_once(after: int) -> None:
    released: list[str] = []
    with pytest.raises(LeaseLost), released_on_stop(lambda: True, lambda: released.append("once")):
        break_off(released, after)
    assert released == ["once"]


def test_a_lease_that_was_lost_otherwise_is_not_released() -> None:
    released: list[str] = []
    with pytest.raises(LeaseLost), released_on_stop(lambda: False, lambda: released.append("")):
        raise LeaseLost("file-1", 1)
    assert released == []
