"""A hand-written training loop, and what is predicted on fixed inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainer.families.family import Denoiser


def stacked(prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([prompt[name] for prompt in prompts]) for name in prompts[0]}


def fixed_inputs(channels: int, timesteps: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise and timesteps, as many as there are timesteps."""
    shape = (2, len(timesteps), channels, 16, 16)
    latents, noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).unbind()
    return latents, noise, torch.tensor(timesteps)


def predicted(denoiser: Denoiser, prompt: Mapping[str, Tensor], inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    latents, noise, timesteps = inputs
    noisy = denoiser.add_noise(latents, noise, timesteps)
    return denoiser.predict(noisy, timesteps, denoiser.condition(prompt), torch.zeros(len(latents), 6))


def losses_of_training(
    denoiser: Denoiser,
    parameters: Mapping[str, nn.Parameter],
    prompt: Mapping[str, Tensor],
    inputs: tuple[Tensor, Tensor, Tensor],
) -> list[float]:
    """Of 15 steps of AdamW on the same inputs."""
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = (predicted(denoiser, prompt, inputs) - denoiser.target(*inputs)).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses
