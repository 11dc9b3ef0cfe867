"""Everything random about a pair, as a function of what the pair is and not of when or where it is computed.

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
    """``noise`` is added to the latents, ``posterior`` samples them; both normal, (channels, height, width)."""

    timestep: int
    drop_prompt: bool
    noise: Tensor
    posterior: Tensor


def training_draw(
    shape: tuple[int, ...], *, seed: int, pair: str, step: int, num_train_timesteps: int, prompt_dropout: float
) -> Draw:
    """Timestep uniform over 0 .. ``num_train_timesteps`` - 1, prompt dropped with the given probability."""
    generator = keyed_generator("train", seed, pair, step)
    timestep, coin = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    noise, posterior = torch.randn((2, *shape), generator=generator).unbind()
    return Draw(int(timestep * num_train_timesteps), coin < prompt_dropout, noise, posterior)


def validation_noise(shape: tuple[int, ...], *, pair: str, draw: int) -> Tensor:
    """The same in every run, whatever its seed, so that runs can be compared pair by pair."""
    return torch.randn(shape, generator=keyed_generator("validation", pair, draw))


def stratum_midpoints(draws: int, num_train_timesteps: int) -> list[int]:
    """Timesteps in the middle of ``draws`` equal parts: for 4 of 1000, 125, 375, 625, 875."""
    return [int((index + 0.5) * num_train_timesteps / draws) for index in range(draws)]


def keyed_generator(*key: str | int) -> Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
