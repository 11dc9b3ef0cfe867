"""Diffusion-DPO against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.objectives.dpo import dpo_loss

pytestmark = pytest.mark.unit


def test_two_pairs_by_hand() -> None:
    """Differences to the reference -0.001 and +0.002; u = -5000 / 2 times that: 2.5 and -5."""
    losses = dpo_loss(
        torch.tensor([0.099, 0.100]),
        torch.tensor([0.050, 0.050]),
        torch.tensor([0.100, 0.099]),
        torch.tensor([0.050, 0.051]),
        beta=5000.0,
    )
    expected = torch.tensor([math.log1p(math.exp(-2.5)), math.log1p(math.exp(5.0))])
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=0)  # fp32 differences of losses near 0.1


def test_a_model_equal_to_its_reference_has_log_2_whatever_the_pair() -> None:
    chosen, rejected = torch.rand(2, 7, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(dpo_loss(chosen, rejected, chosen, rejected, beta=2000.0), torch.full((7,), math.log(2)))


def test_the_gradient_pulls_chosen_down_and_rejected_up_equally_at_beta_over_4() -> None:
    chosen, rejected = torch.tensor([0.1], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=8.0).sum().backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == (2.0, -2.0)


def test_it_stays_finite_where_the_sigmoid_would_not() -> None:
    huge = dpo_loss(torch.tensor([10.0, 0.0]), torch.tensor([0.0, 10.0]), torch.zeros(2), torch.zeros(2), beta=5000.0)
    torch.testing.assert_close(huge, torch.tensor([25000.0, 0.0]))


def test_half_precision_losses_are_compared_in_fp32() -> None:
    a, b = torch.tensor([0.1], dtype=torch.bfloat16), torch.tensor([0.1006], dtype=torch.bfloat16)
    assert dpo_loss(a, b, b, a, beta=100.0).dtype == torch.float32
