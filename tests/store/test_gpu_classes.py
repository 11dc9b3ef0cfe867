from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.gpu_classes import CLASSES, MAX_MEMORY, queue_of, queues_for

pytestmark = pytest.mark.unit
NEEDS = st.none() | st.integers(1, MAX_MEMORY)


def test_a_job_is_in_the_queue_of_the_smallest_class_that_holds_it() -> None:
    assert [queue_of(needed) for needed in (None, 1, 8, 9, 24, 25, 80, 288)] == [
        *("train", "train-8g", "train-8g", "train-12g", "train-24g", "train-32g", "train-80g", "train-288g")
    ]


def test_a_worker_gets_hints_of_what_it_holds_and_one_that_reports_no_memory_of_everything() -> None:
    assert queues_for(16) == ["train", "train-8g", "train-12g", "train-16g"]
    assert queues_for(4) == ["train"]
    assert len(queues_for(None)) == 1 + len(CLASSES)


@given(needed=NEEDS, memory=st.integers(1, 2 * MAX_MEMORY))
def test_what_a_worker_gets_hints_of_it_can_take(needed: int | None, memory: int) -> None:
    if queue_of(needed) in queues_for(memory):
        assert needed is None or needed <= memory
