from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.errors import NonFiniteLoss
from trainer.validation import HeldOutLosses, accuracy, accuracy_interval, metrics

pytestmark = pytest.mark.unit


def sum_of_both(chosen: Tensor, rejected: Tensor) -> Tensor:
    return chosen + 10 * rejected


def losses(chosen: list[list[float]], rejected: list[list[float]]) -> HeldOutLosses:
    return HeldOutLosses(tuple("abc"[: len(chosen)]), torch.tensor(chosen), torch.tensor(rejected))


def test_ties_count_one_half() -> None:
    assert accuracy(np.array([1.0, 0.0, -1.0, 2.0])) == 2.5 / 4


def test_a_pair_is_judged_by_its_mean_over_draws() -> None:
    # Pair a: chosen 0.2 against rejected 0.3 in the mean, though its second draw says otherwise. Pair b the reverse.
    measured = losses([[0.1, 0.3], [0.4, 0.4]], [[0.5, 0.1], [0.5, 0.1]])
    base = losses([[0.2, 0.2], [0.9, 0.9]], [[0.1, 0.1], [0.6, 0.6]])
    result = metrics(3, measured, base, sum_of_both, last_good_step=0)
    assert result.implicit_accuracy == 0.5
    assert result.base_implicit_accuracy == 0.0
    assert result.reference_corrected_accuracy == 1.0  # margins rose from -0.1 and -0.3 to +0.1 and -0.1
    assert result.margin == pytest.approx(0.0, abs=1e-7)
    assert (result.chosen_loss, result.rejected_loss) == pytest.approx((0.3, 0.3))
    assert result.objective == pytest.approx(0.3 + 10 * 0.3)
    assert (result.pairs, result.draws) == (2, 2)


def test_the_interval_of_a_sure_thing_is_a_point_and_of_60_in_100_about_ten_points_each_way() -> None:
    assert accuracy_interval(np.ones(5)) == (1.0, 1.0)
    low, high = accuracy_interval(np.array([1.0] * 60 + [-1.0] * 40))
    assert (low, high) == pytest.approx((0.504, 0.696), abs=0.015)  # 0.6 -+ 1.96 sqrt(0.24 / 100)
    assert accuracy_interval(np.array([1.0] * 60 + [-1.0] * 40)) == (low, high)


def test_a_pair_without_a_finite_loss_is_named() -> None:
    good = losses([[0.1], [0.1]], [[0.1], [0.1]])
    bad = losses([[0.1], [float("nan")]], [[0.1], [0.1]])
    with pytest.raises(NonFiniteLoss, match="step 7, pairs b") as raised:
        metrics(7, bad, good, sum_of_both, last_good_step=4)
    assert raised.value.pairs == ("b",)
