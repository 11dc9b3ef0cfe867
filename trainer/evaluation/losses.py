"""The denoising losses of a batch, as training and evaluation measure them."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.data.batches import Batch
from trainer.families.family import Denoiser
from trainer.objectives.objective import Objective


def denoising_losses(denoiser: Denoiser, batch: Batch) -> tuple[Tensor, ...]:
    """Mean squared errors of each side, (pairs,), under the same noise, in one forward pass."""
    sides = batch.sides
    noise, timesteps = batch.noise.repeat(sides, 1, 1, 1), batch.timesteps.repeat(sides)
    noisy = denoiser.add_noise(batch.latents, noise, timesteps)
    condition = denoiser.condition(batch.prompt)
    prompt = {name: tensor.repeat(sides, *[1] * (tensor.ndim - 1)) for name, tensor in condition.items()}
    prediction = denoiser.predict(noisy, timesteps, prompt, batch.size_ids)
    errors = (prediction - denoiser.target(batch.latents, noise, timesteps)).square().mean(dim=(1, 2, 3))
    return errors.chunk(sides)


def reference_losses(denoiser: Denoiser, batch: Batch, objective: Objective) -> tuple[Tensor | None, Tensor | None]:
    """The reference model's losses of the chosen and the rejected images, where the objective uses them."""
    if not objective.uses_reference:
        return None, None
    with torch.no_grad(), denoiser.without_adapter():
        chosen, *rejected = denoising_losses(denoiser, batch)
    return chosen, rejected[0] if rejected else None
