from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from trainer.families.flow import timestep_at
from trainer.families.sd3 import Sd3Family
from trainer.spec.run import Base

pytestmark = pytest.mark.unit


def test_half_of_the_timesteps_lie_below_the_shifted_middle() -> None:
    assert timestep_at(0.5, 1000, 1.0) == 500.0
    assert timestep_at(0.5, 1000, 3.0) == 750.0


def test_every_share_gives_a_timestep_between_none_and_all_noise() -> None:
    timesteps = [
        timestep_at(share, 1000, 3.0) for share in (0.0, 1e-12, 1e-3, 0.3, 0.999, 1 - 1e-9, math.nextafter(1, 0))
    ]
    assert 0 < timesteps[0] <= timesteps[1]
    assert timesteps[-2] <= timesteps[-1] < 1000
    assert all(earlier <= later for earlier, later in pairwise(timesteps))
    assert torch.tensor(timesteps).max() < 1000  # in fp32 too


def test_even_shares_have_the_density_of_sd3() -> None:
    """Diffusers draws a position in the shifted schedule as the sigmoid of a normal number."""
    torch.manual_seed(0)
    sigmas = torch.sigmoid(torch.randn(200_000, dtype=torch.float64))
    drawn = (1000 * 3 * sigmas / (1 + 2 * sigmas)).sort().values
    shares = (torch.arange(1, 20) / 20).tolist()
    expected = torch.quantile(drawn, torch.tensor(shares, dtype=torch.float64))
    ours = torch.tensor([timestep_at(share, 1000, 3.0) for share in shares], dtype=torch.float64)
    torch.testing.assert_close(ours, expected, atol=3.0, rtol=0)


@pytest.mark.parametrize(("scheduler", "middle"), [({"shift": 3.0}, 750.0), ({"shift": 1.0}, 500.0), ({}, 500.0)])
def test_a_bases_timesteps_have_its_schedulers_shift(scheduler: dict[str, float], middle: float) -> None:
    family = Sd3Family(Base(name="b", family="sd3", source="b"), Path(), scheduler)
    assert family.timestep_at(0.5) == pytest.approx(middle)
