from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from trainer.data.noise import Draw, stratum_midpoints, training_draw, validation_noise

pytestmark = pytest.mark.unit


def draw(seed: int = 1, pair: str = "a", step: int = 1, dropout: float = 0.1) -> Draw:
    return training_draw((4, 8, 8), seed=seed, pair=pair, step=step, prompt_dropout=dropout)


def test_the_same_key_gives_the_same_draw_and_any_other_key_another() -> None:
    assert torch.equal(draw().noise, draw().noise)
    for other in (draw(seed=2), draw(pair="b"), draw(step=2)):
        assert not torch.equal(draw().noise, other.noise)
        assert draw().share != other.share


def test_noise_and_posterior_sampling_are_independent() -> None:
    assert not torch.equal(draw().noise, draw().posterior)


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    draw()
    assert torch.equal(torch.rand(1), expected)


def test_shares_and_captions_are_uniform_and_coins_have_their_rates() -> None:
    draws = [draw(step=step, dropout=0.25) for step in range(4000)]
    for values in ([one.share for one in draws], [one.caption for one in draws]):
        assert 0 <= min(values) < max(values) < 1
        assert sum(values) / 4000 == pytest.approx(0.5, abs=4 * (1 / 12 / 4000) ** 0.5)
    assert sum(one.drop_prompt for one in draws) / 4000 == pytest.approx(0.25, abs=4 * (0.1875 / 4000) ** 0.5)
    assert sum(one.mirror for one in draws) / 4000 == pytest.approx(0.5, abs=4 * (0.25 / 4000) ** 0.5)


def test_coins_share_and_caption_of_a_draw_know_nothing_of_each_other() -> None:
    draws = [draw(step=step, dropout=0.5) for step in range(4000)]
    values = torch.tensor([[one.share, one.drop_prompt, one.mirror, one.caption] for one in draws], dtype=torch.float64)
    apart = torch.corrcoef(values.T) - torch.eye(4, dtype=torch.float64)
    assert apart.abs().max() < 4.5 / 4000**0.5


def test_noise_and_posterior_are_normal() -> None:
    for name in ("noise", "posterior"):
        values = torch.stack([getattr(draw(step=step), name) for step in range(100)]).flatten()
        for share in (0.02, 0.25, 0.5, 0.75, 0.98):
            below = (values < NormalDist().inv_cdf(share)).double().mean().item()
            assert below == pytest.approx(share, abs=4.5 * (share * (1 - share) / len(values)) ** 0.5)


def test_validation_noise_depends_on_pair_and_draw_only() -> None:
    assert torch.equal(validation_noise((4, 8, 8), pair="a", draw=0), validation_noise((4, 8, 8), pair="a", draw=0))
    assert not torch.equal(validation_noise((4, 8, 8), pair="a", draw=0), validation_noise((4, 8, 8), pair="a", draw=1))
    assert not torch.equal(validation_noise((4, 8, 8), pair="a", draw=0), validation_noise((4, 8, 8), pair="b", draw=0))


def test_validation_timesteps_are_stratum_midpoints() -> None:
    assert stratum_midpoints(4) == [0.125, 0.375, 0.625, 0.875]
