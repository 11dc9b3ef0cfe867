"""MaPO's two losses against numbers worked by hand and against plain float64 formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from trainer.objectives.mapo import paper_loss, reference_code_loss

pytestmark = pytest.mark.unit

Loss = Callable[[Tensor, Tensor], Tensor]
GRID = [1e-6, 3e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.99, 1.01, 3.0, 30.0, 100.0, 1e4]
PAIRS = list(itertools.product(GRID, GRID))


def gradients(loss: Loss, chosen: float, rejected: float) -> tuple[float, float]:
    inputs = torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True)
    loss(*inputs).sum().backward()  # type: ignore[no-untyped-call]
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    return inputs[0].grad.item(), inputs[1].grad.item()


def f64(x: Tensor) -> Tensor:
    return x / torch.expm1(x.clamp(max=700)) * (x <= 700)


def paper_f64(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    margin = f64(chosen) ** beta - f64(rejected) ** beta
    return chosen - torch.nn.functional.logsigmoid(margin) / beta


def reference_f64(chosen: Tensor, rejected: Tensor) -> Tensor:
    margin = f64(chosen / 2) - f64(rejected / 2)
    return chosen - 0.1 * torch.nn.functional.logsigmoid(1000 * margin)


def test_paper_loss_of_equal_losses_is_the_chosen_loss_plus_log_2_over_beta() -> None:
    loss = paper_loss(torch.tensor([0.1, 0.3]), torch.tensor([0.1, 0.3]), beta=8)
    torch.testing.assert_close(loss, torch.tensor([0.1 + math.log(2) / 8, 0.3 + math.log(2) / 8]))


def test_paper_loss_matches_a_value_worked_by_hand() -> None:
    # f(ln 2) = ln 2 and f(ln 4) = ln 4 / 3: at beta 1 the margin is ln 2 / 3, and exp(-margin) = 2^(-1/3) = 0.7937005.
    loss = paper_loss(torch.tensor([math.log(2)]), torch.tensor([math.log(4)]), beta=1)
    torch.testing.assert_close(loss, torch.tensor([0.6931472 + math.log(1.7937005)]), rtol=1e-6, atol=0)


def test_reference_code_loss_matches_a_value_worked_by_hand() -> None:
    # At snr_value 1 and T 1 the margin is the same ln 2 / 3, weighed 0.1.
    loss = reference_code_loss(
        torch.tensor([math.log(2)]), torch.tensor([math.log(4)]), snr_value=1.0, num_train_timesteps=1
    )
    torch.testing.assert_close(loss, torch.tensor([0.6931472 + 0.1 * math.log(1.7937005)]), rtol=1e-6, atol=0)


def test_losses_are_per_pair_and_fp32() -> None:
    chosen, rejected = torch.tensor([0.05, 0.2, 0.0]), torch.tensor([0.1, 0.1, 3.0])
    for loss in (partial(paper_loss, beta=64.0), reference_code_loss):
        together = loss(chosen, rejected)
        alone = torch.cat([loss(chosen[i : i + 1], rejected[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=0, atol=0)
        assert together.dtype == torch.float32


def test_half_precision_inputs_under_autocast_give_fp32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert paper_loss(torch.ones(2).bfloat16(), torch.ones(2).bfloat16(), beta=8).dtype == torch.float32


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (partial(paper_loss, beta=8), (1.17, -0.17)),
        (partial(paper_loss, beta=64), (1.01, -0.01)),
        (reference_code_loss, (13.3, -12.3)),
    ],
    ids=["paper-8", "paper-64", "reference-code"],
)
def test_gradients_at_equal_losses_are_the_published_ones(loss: Loss, expected: tuple[float, float]) -> None:
    assert gradients(loss, 0.1, 0.1) == pytest.approx(expected, abs=0.05 if expected[0] > 2 else 0.005)


@pytest.mark.parametrize("beta", [1.0, 8.0, 32.0, 64.0, 128.0, 1024.0, None], ids=lambda b: f"beta-{b}")
def test_values_and_gradients_agree_with_float64(beta: float | None) -> None:
    chosen, rejected = (torch.tensor(side) for side in zip(*PAIRS, strict=True))
    exact_inputs = (chosen.double().requires_grad_(), rejected.double().requires_grad_())
    inputs = (chosen.requires_grad_(), rejected.requires_grad_())
    if beta is None:
        loss, exact = reference_code_loss(*inputs), reference_f64(*exact_inputs)
    else:
        loss, exact = paper_loss(*inputs, beta=beta), paper_f64(*exact_inputs, beta=beta)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-3, atol=0)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    exact.sum().backward()  # type: ignore[no-untyped-call]
    for single, double in zip(inputs, exact_inputs, strict=True):
        assert single.grad is not None
        assert double.grad is not None
        # atol: what fp32 cannot hold as a normal number
        torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-37)


@pytest.mark.parametrize("beta", [8.0, 1024.0, None], ids=lambda b: f"beta-{b}")
@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, 0.0), (0.0, 1e4), (1e4, 0.0), (1e4, 1e4), (1e-30, 0.0)])
def test_extreme_losses_are_finite_with_finite_gradients(chosen: float, rejected: float, beta: float | None) -> None:
    loss: Loss = reference_code_loss if beta is None else partial(paper_loss, beta=beta)
    assert math.isfinite(loss(torch.tensor([chosen]), torch.tensor([rejected])).item())
    assert all(math.isfinite(gradient) for gradient in gradients(loss, chosen, rejected))


def test_gradient_at_zero_is_the_limit() -> None:
    # f'(0) = -1/2 and both pairs sit at margin 0, where sigma is 1/2: 1 + 1/4 and -1/4, for any beta.
    assert gradients(partial(paper_loss, beta=64.0), 0.0, 0.0) == pytest.approx((1.25, -0.25))
