from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.tables.job import JobEvent
from tests.faults.verdict import Recovery, recoveries

pytestmark = pytest.mark.unit
START = datetime(2030, 1, 1, tzinfo=UTC)


def log(*reported: tuple[float, int, dict[str, Any]]) -> list[JobEvent]:
    """Seconds, attempt and data of each."""
    return [
        JobEvent(
            sequence=number,
            attempt=attempt,
            created_at=START + timedelta(seconds=seconds),
            type="metrics" if "step" in data else "message",
            data=data,
        )
        for number, (seconds, attempt, data) in enumerate(reported)
    ]


def test_a_lost_attempt_costs_the_steps_that_are_done_again_even_if_the_next_one_never_starts() -> None:
    found = recoveries(
        log(
            (0, 1, {"status": "running"}),
            (1, 1, {"resumed_from_step": 0}),
            (5, 1, {"step": 35}),
            (11, 1, {"status": "queued"}),
            (12, 2, {"status": "running"}),
            (18, 2, {"status": "queued"}),
            (20, 3, {"status": "running"}),
            (21, 3, {"resumed_from_step": 20}),
        )
    )
    assert list(found) == [Recovery(to_queue=6, to_claim=7, lost_steps=15), Recovery(6, 8, 0)]


def test_a_pause_is_no_recovery() -> None:
    paused = log(
        (0, 1, {"status": "running"}),
        (1, 1, {"status": "paused"}),
        (2, 0, {"status": "queued"}),
        (9, 2, {"status": "running"}),
    )
    assert list(recoveries(paused)) == []
