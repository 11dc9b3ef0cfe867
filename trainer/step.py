"""One optimizer step, without waiting for the device: its losses stay there until someone looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.batches import Batch
from trainer.families.family import Denoiser

Objective = Callable[[Tensor, Tensor], Tensor]  # per-pair losses (pairs,), (pairs,) -> (pairs,)


@dataclass(frozen=True)
class StepRecord:
    """``losses`` (3, pairs): objective, chosen and rejected loss of each pair, on the device as ``grad_norm`` is."""

    step: int
    pairs: tuple[str, ...]
    losses: Tensor
    grad_norm: Tensor
    learning_rate: float


def denoising_losses(denoiser: Denoiser, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean squared errors of chosen and rejected, (pairs,) each, under the same noise, in one forward pass."""
    noise, timesteps = batch.noise.repeat(2, 1, 1, 1), batch.timesteps.repeat(2)
    noisy = denoiser.add_noise(batch.latents, noise, timesteps)
    prompt = {name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in batch.prompt.items()}
    prediction = denoiser.predict(noisy, timesteps, prompt, batch.size_ids)
    errors = (prediction - denoiser.target(batch.latents, noise, timesteps)).square().mean(dim=(1, 2, 3))
    chosen, rejected = errors.chunk(2)
    return chosen, rejected


def new_optimizer(parameters: Sequence[nn.Parameter], *, weight_decay: float) -> torch.optim.AdamW:
    """``training_step`` sets the learning rate."""
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)


def training_step(
    denoiser: Denoiser,
    optimizer: torch.optim.AdamW,
    batches: Sequence[Batch],
    objective: Objective,
    *,
    step: int,
    learning_rate: float,
    max_grad_norm: float,
) -> StepRecord:
    """The gradient of the mean objective over all pairs of ``batches``, clipped, and one AdamW update."""
    pairs = sum(len(batch.pairs) for batch in batches)
    losses: list[Tensor] = []
    for batch in batches:
        chosen, rejected = denoising_losses(denoiser, batch)
        values = objective(chosen, rejected)
        (values.sum() / pairs).backward()  # type: ignore[no-untyped-call]
        losses.append(torch.stack([values, chosen, rejected]).detach())
    (group,) = optimizer.param_groups
    grad_norm = nn.utils.clip_grad_norm_(group["params"], max_grad_norm)
    group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepRecord(
        step,
        tuple(name for batch in batches for name in batch.pairs),
        torch.cat(losses, dim=1),
        grad_norm,
        learning_rate,
    )
