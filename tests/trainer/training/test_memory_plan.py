"""How a step is made to fit, on devices that hold so and so much."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from trainer.runtime.device import explain_out_of_memory
from trainer.runtime.errors import OutOfMemory
from trainer.spec.run import Compute
from trainer.training.memory_plan import MemoryPlan, candidate_plans, first_that_fits

pytestmark = pytest.mark.unit


def device_with(units: float) -> Callable[[MemoryPlan], None]:
    """A pair takes 2 units, half of that streamed, a fifth of it with checkpointing."""

    def attempt(plan: MemoryPlan) -> None:
        needed = 2 * plan.batch_size * (0.5 if plan.streamed else 1) * (0.2 if plan.gradient_checkpointing else 1)
        if needed > units:
            raise OutOfMemory("device", int(needed), plan.batch_size)

    return attempt


def chosen(units: float, batch_size: int | str = "auto", **compute: object) -> tuple[int, bool, bool]:
    requested = Compute.model_validate(compute)
    plan = first_that_fits(candidate_plans(batch_size, 12, requested), device_with(units))  # type: ignore[arg-type]
    return plan.batch_size, plan.streamed, plan.gradient_checkpointing


@pytest.mark.parametrize(
    ("units", "plan"),
    [
        (24, (12, False, False)),
        (23, (6, False, False)),
        (2, (1, False, False)),
        (1, (2, False, True)),
        (0.9, (2, False, True)),
        (0.2, (1, True, True)),
    ],
)
def test_the_fastest_plan_that_fits_is_taken(units: float, plan: tuple[int, bool, bool]) -> None:
    assert chosen(units) == plan


def test_what_the_user_fixed_stays() -> None:
    assert chosen(100, batch_size=5) == (5, False, False)
    assert chosen(100, pairs="streamed", gradient_checkpointing=True) == (12, True, True)
    assert chosen(5, batch_size=5) == (5, False, True)
    with pytest.raises(OutOfMemory):
        chosen(5, batch_size=5, pairs="joint", gradient_checkpointing=False)


def fail_plainly() -> None:
    raise torch.OutOfMemoryError


def fail_as_a_cause() -> None:
    try:
        fail_plainly()
    except torch.OutOfMemoryError as error:
        raise RuntimeError("the backward pass failed") from error


def fail_in_a_handler() -> None:
    try:
        fail_plainly()
    except torch.OutOfMemoryError:
        raise RuntimeError("the backward pass failed")  # noqa: B904  (with a context and no cause)


@pytest.mark.parametrize("fail", [fail_plainly, fail_as_a_cause, fail_in_a_handler])
def test_an_attempt_begins_with_the_memory_of_those_before_it_released(fail: Callable[[], None]) -> None:
    activations: list[weakref.ref[torch.Tensor]] = []
    in_use: list[int] = []

    def network() -> None:
        activation = torch.zeros(8)
        activations.append(weakref.ref(activation))
        fail()

    def attempt(plan: MemoryPlan) -> None:
        gc.collect()
        in_use.append(sum(reference() is not None for reference in activations))
        with explain_out_of_memory(torch.device("cpu"), plan.batch_size):
            batch = torch.zeros(8)
            activations.append(weakref.ref(batch))
            network()

    with pytest.raises(OutOfMemory):
        first_that_fits(candidate_plans(1, 12, Compute()), attempt)
    assert in_use == [0, 0, 0, 0]


def test_with_dropout_nothing_is_streamed() -> None:
    assert not any(plan.streamed for plan in candidate_plans("auto", 12, Compute(), dropout=True))
    assert any(plan.streamed for plan in candidate_plans("auto", 12, Compute()))


def test_nothing_that_fits_is_an_error_about_the_last_try() -> None:
    with pytest.raises(OutOfMemory, match="batch_size 1 "):
        chosen(0.1)


@pytest.mark.parametrize("batch_size", ["auto", 5])
def test_the_memory_need_of_plans_falls_in_the_order_in_which_they_are_tried(batch_size: int | str) -> None:
    """So that of several devices' plans the lowest is the one that fits all."""
    needs = [plan.memory_need() for plan in candidate_plans(batch_size, 12, Compute())]  # type: ignore[arg-type]
    assert len(set(needs)) == len(needs) > 3
    assert needs == sorted(needs, reverse=True)
