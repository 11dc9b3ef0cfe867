"""Held-out pairs, measured on the same timesteps and noise at every checkpoint and in every run.

Each pair is scored on ``draws`` fixed draws (stratified timesteps, noise keyed by pair and draw, the posterior's mean
as latents, no prompt dropout) and prefers the image whose loss, averaged over its draws, is lower. Without a
reference that also measures which image is simpler, so the base's numbers on the same draws stand beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from trainer.batches import Batch, collate
from trainer.buckets import Bucket
from trainer.cache import Cache
from trainer.encoding import EncodedPair
from trainer.errors import NonFiniteLoss
from trainer.families.family import Denoiser
from trainer.interrupt import StopRequest
from trainer.noise import stratum_midpoints, validation_noise
from trainer.objectives.objective import Objective, PairLosses
from trainer.rundir import PairFiles
from trainer.spec.events import Metrics
from trainer.step import denoising_losses
from trainer.world import ALONE, World

RESAMPLES = 2000


@dataclass(frozen=True)
class HeldOutLosses:
    """Mean squared errors, fp32 on the CPU, (pairs, draws) each; ``pairs`` are their ids."""

    pairs: tuple[str, ...]
    chosen: Tensor
    rejected: Tensor


Named = TypeVar("Named", EncodedPair, PairFiles)


def selected(pairs: Sequence[Named], at_most: int) -> list[Named]:
    """Those with the lowest hashes of their ids: the same ones wherever they stand in the data."""
    by_hash = sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    return by_hash[:at_most]


@torch.no_grad()
def held_out_losses(
    denoiser: Denoiser,
    pairs: Sequence[EncodedPair],
    cache: Cache,
    *,
    draws: int,
    timestep_at: Callable[[float], float],
    batch_size: int,
    device: torch.device,
    stop: StopRequest,
    progress: Callable[[int, int], None],
    world: World = ALONE,
) -> HeldOutLosses:
    timesteps = [timestep_at(share) for share in stratum_midpoints(draws)]
    measured: dict[str, Tensor] = {}
    for group in world.share(list(_groups(pairs, batch_size))):
        losses: list[Tensor] = []
        for batch in fixed_batches(group, cache, timesteps):
            stop.check()
            losses.append(torch.stack(denoising_losses(denoiser, batch.to(device))))  # (2, pairs)
        measured.update(zip((pair.id for pair in group), torch.stack(losses, dim=-1).cpu().unbind(1), strict=True))
        progress(len(measured), len(pairs))
    stop.agree(world.any(stop.requested))
    everyones = {name: losses for part in world.gather(measured) for name, losses in part.items()}
    measured = {pair.id: everyones[pair.id] for group in _groups(pairs, batch_size) for pair in group}
    chosen, rejected = torch.stack(list(measured.values()), dim=1).unbind()
    return HeldOutLosses(tuple(measured), chosen.contiguous(), rejected.contiguous())


def fixed_batches(pairs: Sequence[EncodedPair], cache: Cache, timesteps: Sequence[float]) -> Iterator[Batch]:
    """One batch of these pairs, which share a bucket, for each draw's timestep."""
    latents = [[cache.read(image.key)["mean"] for image in pair.images] for pair in pairs]
    prompts = [cache.read(pair.prompt_keys[0]) for pair in pairs]
    for draw, timestep in enumerate(timesteps):
        noise = [
            validation_noise(tuple(one[0].shape), pair=pair.id, draw=draw)
            for pair, one in zip(pairs, latents, strict=True)
        ]
        yield collate(
            [pair.id for pair in pairs],
            images=[pair.images for pair in pairs],
            latents=latents,
            noise=noise,
            timesteps=[timestep] * len(pairs),
            prompts=prompts,
        )


def _groups(pairs: Sequence[EncodedPair], size: int) -> Iterator[list[EncodedPair]]:
    alike: dict[Bucket, list[EncodedPair]] = {}
    for pair in pairs:
        alike.setdefault(pair.bucket, []).append(pair)
    for members in alike.values():
        for start in range(0, len(members), size):
            yield members[start : start + size]


def metrics(
    step: int,
    losses: HeldOutLosses,
    base: HeldOutLosses,
    objective: Objective,
    *,
    last_good_step: int,
    final: bool = False,
) -> Metrics:
    """``reference_corrected_accuracy`` counts pairs whose L_w - L_l fell against the base's; ties count one half.

    Raises NonFiniteLoss naming the pairs that have none.
    """
    bad = ~(losses.chosen + losses.rejected).isfinite().all(dim=1)
    if bad.any():
        named = [pair for pair, is_bad in zip(losses.pairs, bad.tolist(), strict=True) if is_bad]
        raise NonFiniteLoss(step, named, last_good_step)
    margins, base_margins = (_margins(measured) for measured in (losses, base))
    low, high = accuracy_interval(margins)
    return Metrics(
        step=step,
        objective=_objective_values(losses, base, objective).mean().item(),
        chosen_loss=losses.chosen.mean().item(),
        rejected_loss=losses.rejected.mean().item(),
        margin=float(margins.mean()),
        implicit_accuracy=accuracy(margins),
        implicit_accuracy_low=low,
        implicit_accuracy_high=high,
        base_implicit_accuracy=accuracy(base_margins),
        base_chosen_loss=base.chosen.mean().item(),
        base_rejected_loss=base.rejected.mean().item(),
        reference_corrected_accuracy=accuracy(margins - base_margins),
        pairs=len(margins),
        draws=losses.chosen.shape[1],
        final=final,
    )


def _objective_values(losses: HeldOutLosses, base: HeldOutLosses, objective: Objective) -> Tensor:
    """(pairs, draws)."""
    flat = [side.flatten() for side in (losses.chosen, losses.rejected, base.chosen, base.rejected)]
    return objective.loss(PairLosses(*flat)).view_as(losses.chosen)


Margins = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _margins(losses: HeldOutLosses) -> Margins:
    """L_l - L_w of each pair, averaged over its draws: (pairs,)."""
    margins: Margins = (losses.rejected.double() - losses.chosen.double()).mean(dim=1).numpy()
    return margins


def accuracy(margins: Margins) -> float:
    """Share of positive margins, zeros counting one half."""
    return float((np.sign(margins) + 1).mean() / 2)


def accuracy_interval(margins: Margins) -> tuple[float, float]:
    """95% percentile bootstrap over pairs, always with the same resamples.

    Resampling pairs with outcomes 0, 1/2 and 1 is a multinomial draw of how often each outcome comes up.
    """
    outcomes = np.array([0.0, 0.5, 1.0])
    shares = np.array([(margins < 0).mean(), (margins == 0).mean(), (margins > 0).mean()])
    counts = np.random.default_rng(0).multinomial(len(margins), shares, size=RESAMPLES)
    low, high = np.quantile(counts @ outcomes / len(margins), [0.025, 0.975])
    return float(low), float(high)
