from __future__ import annotations

import pytest

from tests.faults.schedule import Kind, schedule

pytestmark = pytest.mark.unit
TIMES = {"every": 2.5, "lease_seconds": 6.0, "stall_seconds": 20.0}


def test_a_seed_is_a_schedule() -> None:
    assert schedule(3, seconds=600, **TIMES) == schedule(3, seconds=600, **TIMES)
    assert schedule(3, seconds=600, **TIMES) != schedule(4, seconds=600, **TIMES)


def test_a_shorter_run_has_the_beginning_of_a_longer_one() -> None:
    short, long = schedule(3, seconds=60, **TIMES), schedule(3, seconds=600, **TIMES)
    assert long[: len(short)] == short


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_once_before_any_comes_again(seed: int) -> None:
    faults = schedule(seed, seconds=120, **TIMES)
    assert {fault.kind for fault in faults[: len(Kind)]} == set(Kind)
    assert all(0 < fault.at < 120 for fault in faults)


def test_what_stops_a_worker_lasts_longer_than_its_lease() -> None:
    past_lease = (Kind.FREEZE_WORKER, Kind.FREEZE_HOST, Kind.PARTITION)
    faults = schedule(0, seconds=600, **TIMES)
    assert all(fault.seconds > TIMES["lease_seconds"] + 1 for fault in faults if fault.kind in past_lease)
