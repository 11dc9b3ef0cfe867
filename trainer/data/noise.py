"""The random draws of a pair: noise, timestep, caption and flips, keyed by seed, pair and step.

Each draw has a generator of its own, keyed by (seed, pair, step). So a run does not depend on how pairs fall into
batches, on the number of workers, or on where it was resumed; and the chosen and the rejected image of a pair share
their noise, timestep and prompt dropout because there is only one draw for both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draw:
    """``noise`` is added to the latents, ``posterior`` samples them; both normal, (channels, height, width).

    ``share`` in [0, 1) says where among the timesteps, ``caption`` in [0, 1) which caption template.
    """

    share: float
    drop_prompt: bool
    mirror: bool
    caption: float
    noise: Tensor
    posterior: Tensor


def training_draw(shape: tuple[int, ...], *, seed: int, pair: str, step: int, prompt_dropout: float) -> Draw:
    """Share, coins and caption are uniform; the prompt is dropped with the given probability."""
    generator = keyed_generator("train", seed, pair, step)
    share, drop, mirror, caption = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    noise, posterior = torch.randn((2, *shape), generator=generator).unbind()
    return Draw(share, drop < prompt_dropout, mirror < 0.5, caption, noise, posterior)


def validation_noise(shape: tuple[int, ...], *, pair: str, draw: int) -> Tensor:
    """The same in every run, whatever its seed, so that runs can be compared pair by pair."""
    return torch.randn(shape, generator=keyed_generator("validation", pair, draw))


def stratum_midpoints(draws: int) -> list[float]:
    """The middles of ``draws`` equal parts of [0, 1): for 4, 0.125, 0.375, 0.625, 0.875."""
    return [(index + 0.5) / draws for index in range(draws)]


def keyed_seed(*key: str | int) -> int:
    """31 bits, for what records its seed."""
    return keyed_generator(*key).initial_seed() % 2**31


def keyed_generator(*key: str | int) -> Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
