from __future__ import annotations

from functools import partial

import pytest

from trainer.training.schedule import learning_rate

pytestmark = pytest.mark.unit

rate = partial(learning_rate, peak=1.0, warmup_steps=2, max_steps=6)


def test_warm_up_rises_linearly_to_the_peak() -> None:
    assert [rate(step, kind="constant") for step in (1, 2, 3, 6)] == [0.5, 1.0, 1.0, 1.0]


def test_linear_decay_would_reach_zero_after_the_last_step() -> None:
    assert [rate(step, kind="linear") for step in (3, 4, 5, 6)] == [1.0, 0.75, 0.5, 0.25]


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert [rate(step, kind="cosine") for step in (3, 5)] == pytest.approx([1.0, 0.5])


def test_a_run_that_is_all_warm_up_has_rates() -> None:
    assert learning_rate(1, peak=1.0, warmup_steps=5, max_steps=1, kind="cosine") == pytest.approx(0.2)
