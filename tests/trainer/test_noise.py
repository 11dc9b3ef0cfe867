from __future__ import annotations

import pytest
import torch

from trainer.noise import Draw, stratum_midpoints, training_draw, validation_noise

pytestmark = pytest.mark.unit


def draw(seed: int = 1, pair: str = "a", step: int = 1, dropout: float = 0.1) -> Draw:
    return training_draw((4, 8, 8), seed=seed, pair=pair, step=step, num_train_timesteps=1000, prompt_dropout=dropout)


def test_the_same_key_gives_the_same_draw_and_any_other_key_another() -> None:
    assert torch.equal(draw().noise, draw().noise)
    for other in (draw(seed=2), draw(pair="b"), draw(step=2)):
        assert not torch.equal(draw().noise, other.noise)
        assert draw().timestep != other.timestep


def test_noise_and_posterior_sampling_are_independent() -> None:
    assert not torch.equal(draw().noise, draw().posterior)


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    draw()
    assert torch.equal(torch.rand(1), expected)


def test_timesteps_are_uniform_and_dropout_has_its_rate() -> None:
    draws = [draw(step=step, dropout=0.25) for step in range(4000)]
    timesteps = torch.tensor([one.timestep for one in draws], dtype=torch.float)
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert timesteps.mean() == pytest.approx(499.5, abs=4 * 288.7 / 4000**0.5)
    assert sum(one.drop_prompt for one in draws) / 4000 == pytest.approx(0.25, abs=4 * (0.1875 / 4000) ** 0.5)


def test_validation_noise_depends_on_pair_and_draw_only() -> None:
    assert torch.equal(validation_noise((4, 8, 8), pair="a", draw=0), validation_noise((4, 8, 8), pair="a", draw=0))
    assert not torch.equal(validation_noise((4, 8, 8), pair="a", draw=0), validation_noise((4, 8, 8), pair="a", draw=1))


def test_validation_timesteps_are_stratum_midpoints() -> None:
    assert stratum_midpoints(4, 1000) == [125, 375, 625, 875]
