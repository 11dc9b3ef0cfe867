"""Each warning on a course that deserves it and on courses that do not."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.evaluation.diagnostics import should_stop, warnings

pytestmark = pytest.mark.unit

Row = dict[str, Any]
STEPS = 25  # between evaluations


def evaluation(step: int, objective: float, chosen: float = -0.02, margin: float = 0.03, **changes: Any) -> Row:
    """Changes against the base, with intervals of a hundredth each way."""
    return {
        "kind": "validation",
        "final": False,
        "step": step,
        "pairs": 40,
        "objective": objective,
        "chosen_loss": 0.1 + chosen,
        "base_chosen_loss": 0.1,
        "implicit_accuracy": 0.7,
        "base_implicit_accuracy": 0.4,
        **interval("objective", objective - 0.5),
        **interval("chosen_loss", chosen),
        **interval("margin", margin),
    } | changes


def interval(name: str, change: float) -> Row:
    return {f"{name}_change": change, f"{name}_change_low": change - 0.01, f"{name}_change_high": change + 0.01}


def base(**changes: Any) -> Row:
    return evaluation(0, 0.5, chosen=0.0, margin=0.0, **changes)


def steps(before: int, loss: float, grad_norm: float = 1.0) -> list[Row]:
    return [
        {"kind": "train", "step": step, "loss": loss, "grad_norm": grad_norm}
        for step in range(before - STEPS + 1, before + 1)
    ]


def healthy(objectives: list[float]) -> list[Row]:
    rows = [base()]
    for index, objective in enumerate(objectives, start=1):
        rows += [*steps(STEPS * index, objective), evaluation(STEPS * index, objective)]
    return rows


def codes(rows: list[Row], max_steps: int = 1000) -> list[str]:
    return [warned.code for warned in warnings(rows, max_steps)]


def test_a_healthy_run_is_not_warned_of() -> None:
    for length in range(5):
        assert codes(healthy([0.45, 0.42, 0.40, 0.39][:length]), max_steps=100) == []


def test_the_base_itself_is_nothing_to_warn_of() -> None:
    assert codes([base()], max_steps=1) == []


def test_few_pairs_are_reported_at_the_start() -> None:
    assert codes([base(pairs=11)]) == ["few_validation_pairs"]
    assert codes([base(pairs=12)]) == []


def test_a_chosen_loss_above_the_bases_is_reported_once_it_is_certain() -> None:
    assert codes([base(), evaluation(25, 0.45, chosen=0.02, margin=0.0)]) == ["chosen_loss_rising"]
    assert codes([base(), evaluation(25, 0.45, chosen=0.005, margin=0.0)]) == []


def test_a_margin_that_rejected_images_alone_have_made_is_reported() -> None:
    assert codes([base(), evaluation(25, 0.45, chosen=0.0, margin=0.05)]) == ["margin_from_rejected_only"]
    assert codes([base(), evaluation(25, 0.45, chosen=-0.02, margin=0.05)]) == []
    assert codes([base(), evaluation(25, 0.45, chosen=0.0, margin=0.005)]) == []


def test_a_run_that_has_nothing_left_to_order_is_reported() -> None:
    sure = {"implicit_accuracy": 1.0}
    assert codes([base(), evaluation(25, 0.2, **sure), evaluation(50, 0.2, **sure)]) == ["saturated"]
    assert codes([base(), evaluation(25, 0.3, **sure), evaluation(50, 0.2, **sure)]) == []
    always = base(base_implicit_accuracy=1.0)
    known = sure | {"base_implicit_accuracy": 1.0}
    assert codes([always, evaluation(25, 0.2, **known), evaluation(50, 0.2, **known)]) == []


def test_rising_loss_with_a_growing_gradient_is_divergence() -> None:
    first, second = evaluation(25, 0.45), evaluation(50, 0.44)
    assert codes([base(), *steps(25, 0.4), first, *steps(50, 0.9, grad_norm=5.0), second]) == ["diverging"]
    assert codes([base(), *steps(25, 0.4), first, *steps(50, 0.9), second]) == []
    assert codes([base(), *steps(25, 0.4), first, *steps(50, 0.45, grad_norm=5.0), second]) == []
    for size in (0.01, 100.0):  # of gradients, which the network decides
        before, grown, alike = (
            steps(step, loss, grad_norm=factor * size)
            for step, loss, factor in ((25, 0.4, 1), (50, 0.9, 5), (50, 0.9, 2))
        )
        assert codes([base(), *before, first, *grown, second]) == ["diverging"]
        assert codes([base(), *before, first, *alike, second]) == []


def test_held_out_pairs_that_get_worse_while_training_pairs_get_better_are_overfitting() -> None:
    def run(losses: list[float]) -> list[Row]:
        rows = [base()]
        for index, (objective, loss) in enumerate(zip([0.40, 0.42, 0.44], losses, strict=True), start=1):
            rows += [*steps(STEPS * index, loss), evaluation(STEPS * index, objective)]
        return rows

    assert codes(run([0.4, 0.35, 0.3])) == ["overfitting"]
    assert codes(run([0.4, 0.4, 0.4])) == []


def test_an_objective_that_has_not_left_the_bases_by_half_time_is_reported() -> None:
    same = evaluation(50, 0.495, chosen=0.0, margin=0.0)
    assert codes([base(), same], max_steps=100) == ["no_learning"]
    assert codes([base(), same], max_steps=101) == []


def test_a_warning_is_said_once() -> None:
    rows = [base(pairs=3), {"kind": "warning", "step": 0, "code": "few_validation_pairs", "message": ""}]
    assert codes(rows) == []


def test_every_warning_holds_its_numbers_and_advice() -> None:
    (warned,) = warnings([base(), evaluation(25, 0.45, chosen=0.02, margin=0.0)], 1000)
    assert "0.1200 against 0.1000" in warned.message
    assert "learning_rate" in warned.message


@pytest.mark.parametrize(
    ("objectives", "patience", "stops"),
    [
        ([], 1, False),
        ([0.4], 1, False),
        ([0.4, 0.41], 1, True),
        ([0.4, 0.41], 2, False),
        ([0.4, 0.41, 0.42], 2, True),
        ([0.4, 0.41, 0.39], 2, False),
        ([0.4, 0.41, 0.42], None, False),
    ],
)
def test_patience_counts_evaluations_since_the_best(objectives: list[float], patience: int | None, stops: bool) -> None:
    assert should_stop(healthy(objectives), patience) is stops


def test_the_final_measurement_is_no_evaluation_of_the_course() -> None:
    """It is of the best adapter, measured once more."""
    final = evaluation(50, 0.40) | {"final": True}
    assert not should_stop([*healthy([0.4, 0.39]), final, final], 1)
    sure = {"implicit_accuracy": 1.0}
    rows = [base(), evaluation(25, 0.2, **sure)]
    assert codes([*rows, evaluation(50, 0.2, **sure) | {"final": True}]) == codes(rows) == []
