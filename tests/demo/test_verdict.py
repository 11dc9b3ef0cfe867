"""What `make demo` takes for a success, and what it ends with 1 for."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from demo.compare import Comparison, scored
from demo.emoji import openmoji
from demo.emoji.openmoji import IMAGE_SIZE
from demo.run import conclude
from demo.verdict import shortfall
from demo.win_rate import WinRate

pytestmark = pytest.mark.unit

BETTER = WinRate(rate=0.9, low=0.8, high=0.97)
UNSURE = WinRate(rate=0.6, low=0.49, high=0.7)
WORSE = WinRate(rate=0.1, low=0.03, high=0.2)


@pytest.mark.parametrize(("low", "accuracy"), [(0.8, 0.7), (0.5, 0.7), (0.51, 0.011), (1.0, 1.0)])
def test_an_adapter_that_surely_wins_and_whose_accuracy_rises_is_better(low: float, accuracy: float) -> None:
    assert shortfall(WinRate(1.0, low, 1.0), accuracy=accuracy, base_accuracy=0.01) is None


@pytest.mark.parametrize("wins", [UNSURE, WORSE, WinRate(0.5, 0.4999, 0.6), WinRate(*[float("nan")] * 3)])
def test_a_win_rate_that_may_be_below_one_half_is_a_shortfall(wins: WinRate) -> None:
    why_not = shortfall(wins, accuracy=0.9, base_accuracy=0.1)
    assert why_not is not None
    assert f"win rate of its samples over the base's may be below 0.5 ({wins.rate:.2f}" in why_not
    assert "accuracy" not in why_not


@pytest.mark.parametrize("accuracy", [0.1, 0.05, 0.0, float("nan")])
def test_an_accuracy_that_does_not_rise_above_the_bases_is_a_shortfall(accuracy: float) -> None:
    why_not = shortfall(BETTER, accuracy=accuracy, base_accuracy=0.1)
    assert why_not == (
        "The adapter is not better than its base: its implicit accuracy on held-out pairs "
        f"({accuracy:.2f}) is not above the base's (0.10)."
    )


def test_both_reasons_are_one_sentence() -> None:
    assert shortfall(WORSE, accuracy=0.1, base_accuracy=0.2) == (
        "The adapter is not better than its base: the win rate of its samples over the base's may be below 0.5 "
        "(0.10, 95% interval 0.03-0.20), and its implicit accuracy on held-out pairs (0.10) is not above the base's "
        "(0.20)."
    )


@pytest.mark.parametrize(
    ("wins", "accuracy", "code"), [(BETTER, 0.7, 0), (UNSURE, 0.7, 1), (WORSE, 0.7, 1), (BETTER, 0.3, 1)]
)
def test_the_demo_ends_with_1_and_says_why_where_the_adapter_is_not_better(
    wins: WinRate, accuracy: float, code: int
) -> None:
    measured: dict[str, Any] = {
        "implicit_accuracy": accuracy,
        "implicit_accuracy_low": accuracy - 0.1,
        "implicit_accuracy_high": accuracy + 0.1,
        "base_implicit_accuracy": 0.3,
        "pairs": 33,
    }
    result = Comparison(wins, 0.99, base_score=0.1, adapter_score=0.9, base_fidelity=0.5, adapter_fidelity=0.5, seeds=2)
    shown = io.StringIO()
    assert conclude(measured, result, Console(file=shown, width=400)) == code
    why_not = shortfall(wins, accuracy=accuracy, base_accuracy=0.3)
    failure = f"The demo failed: {why_not}"
    assert (failure in shown.getvalue()) == (code == 1)


def test_samples_in_the_wanted_style_win_over_those_in_the_rejected_one() -> None:
    catalogue = openmoji.catalogue()
    held_out = [emoji for emoji in catalogue if emoji.held_out][:8]
    positions = [catalogue.index(emoji) for emoji in held_out]
    line, colour = ([[openmoji.render(one.key, kind, IMAGE_SIZE) for one in held_out]] for kind in ("line", "color"))
    good = scored(colour, line, indices=positions)
    assert good.win_rate.low > 0.5
    assert good.adapter_score > good.base_score
    bad = scored(line, colour, indices=positions)
    assert bad.win_rate.high < 0.5
    assert bad.adapter_score < bad.base_score
