from __future__ import annotations

import pytest
import torch

from trainer.objectives.sft import dreambooth_loss, sft_loss

pytestmark = pytest.mark.unit


def test_sft_is_the_chosen_images_error_in_fp32() -> None:
    losses = sft_loss(torch.tensor([0.5, 2.0], dtype=torch.bfloat16))
    assert (losses.tolist(), losses.dtype) == ([0.5, 2.0], torch.float32)


def test_dreambooth_adds_the_weighted_prior_pair_by_pair() -> None:
    losses = dreambooth_loss(torch.tensor([0.5, 2.0]), torch.tensor([1.0, 3.0]), prior_weight=0.5)
    assert losses.tolist() == [1.0, 3.5]
