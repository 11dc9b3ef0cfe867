"""DCO against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.objectives.dco import dco_loss

pytestmark = pytest.mark.unit


def test_two_images_by_hand() -> None:
    """beta times the difference to the reference is -2 and 3."""
    losses = dco_loss(torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.375]), beta=8.0)
    expected = torch.tensor([math.log1p(math.exp(-2.0)), math.log1p(math.exp(3.0))])
    torch.testing.assert_close(losses, expected)


def test_the_gradient_fades_once_an_image_is_fitted_better_than_by_the_reference() -> None:
    chosen = torch.tensor([0.5, 0.5], requires_grad=True)
    dco_loss(chosen, torch.tensor([0.5, 0.51]), beta=1000.0).sum().backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None
    assert chosen.grad[0].item() == pytest.approx(500.0)
    assert chosen.grad[1].item() == pytest.approx(1000 / (1 + math.exp(10)), rel=1e-3)
