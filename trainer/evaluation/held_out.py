"""Measure held-out pairs on the same timesteps and noise at every evaluation and in every run.

Each pair is scored on ``draws`` fixed draws (stratified timesteps, noise keyed by pair and draw, the posterior's mean
as latents, no prompt dropout) and prefers the image whose loss, averaged over its draws, is lower. Without a
reference that also measures which image is simpler, so the report gives the base's numbers on the same draws with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.cache.cache import Cache
from trainer.data.batches import Batch, collate
from trainer.data.encoding import EncodedPair
from trainer.data.noise import stratum_midpoints, validation_noise
from trainer.evaluation.losses import denoising_losses
from trainer.families.family import Denoiser
from trainer.objectives.objective import Objective, PairLosses
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from trainer.runtime.errors import NonFiniteLoss, OutOfMemory
from trainer.runtime.signals import StopRequest
from trainer.spec.buckets import Bucket
from trainer.spec.events import Metrics, TimestepBin

HELD_OUT_BATCH = 4  # pairs in a forward pass without gradient, which fits wherever a step does
RESAMPLES = 2000
BUDGET = 0.05  # of the time of the steps between two evaluations
STEP_COST = 2.5  # forward passes


@dataclass(frozen=True)
class HeldOutLosses:
    """Mean squared errors, fp32 on the CPU, (pairs, draws) each; ``timesteps`` are those of the draws."""

    pairs: tuple[str, ...]
    timesteps: tuple[float, ...]
    chosen: Tensor
    rejected: Tensor

    def of(self, pairs: Sequence[str]) -> HeldOutLosses:
        """Of these pairs alone, in this order."""
        positions = {pair: position for position, pair in enumerate(self.pairs)}
        rows = [positions[pair] for pair in pairs]
        return HeldOutLosses(tuple(pairs), self.timesteps, self.chosen[rows], self.rejected[rows])


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
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> HeldOutLosses:
    timesteps = [timestep_at(share) for share in stratum_midpoints(draws)]
    measured: dict[str, Tensor] = {}
    for group in process_group.shard(list(_groups(pairs, batch_size))):
        losses = _losses_within_memory(denoiser, group, cache, timesteps, device, stop)
        measured.update(zip((pair.id for pair in group), losses.unbind(1), strict=True))
        progress(len(measured), len(pairs))
    stop.agree(process_group.any(stop.requested))
    everyones = {name: losses for part in process_group.all_gather(measured) for name, losses in part.items()}
    measured = {pair.id: everyones[pair.id] for group in _groups(pairs, batch_size) for pair in group}
    chosen, rejected = torch.stack(list(measured.values()), dim=1).unbind()
    return HeldOutLosses(tuple(measured), tuple(timesteps), chosen.contiguous(), rejected.contiguous())


def _losses_within_memory(
    denoiser: Denoiser,
    pairs: Sequence[EncodedPair],
    cache: Cache,
    timesteps: Sequence[float],
    device: torch.device,
    stop: StopRequest,
) -> Tensor:
    """(2, pairs, timesteps) on the CPU; in two halves where the pairs do not fit together. Raises OutOfMemory."""
    losses: list[Tensor] = []
    try:
        with explain_out_of_memory(device, len(pairs)):
            for batch in fixed_batches(pairs, cache, timesteps):
                stop.check()
                losses.append(torch.stack(denoising_losses(denoiser, batch.to(device))))  # (2, pairs)
            return torch.stack(losses, dim=-1).cpu()
    except OutOfMemory:
        if len(pairs) == 1:
            raise
    losses.clear()
    free_memory(device)
    half = len(pairs) // 2
    parts = (_losses_within_memory(denoiser, p, cache, timesteps, device, stop) for p in (pairs[:half], pairs[half:]))
    return torch.cat(list(parts), dim=1)


def fixed_batches(pairs: Sequence[EncodedPair], cache: Cache, timesteps: Sequence[float]) -> Iterator[Batch]:
    """One batch of these pairs, which share a bucket, for each draw's timestep."""
    latents = [[cache.read(image.key)["mean"].float() for image in pair.images] for pair in pairs]
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


def pairs_within_budget(*, every: int, effective_batch_size: int, draws: int, available: int) -> int:
    """How many held-out pairs an evaluation measures so that it costs at most 5% of the ``every`` steps before it.

    In forward passes of one image: an evaluation takes 2 a pair and draw; a step of the method that costs least, on
    chosen images alone, takes about 2.5 a pair, its backward pass being 1.5 with frozen weights. The number is the same
    for every method, so that methods can be compared; at least 2.
    """
    affordable = BUDGET * every * effective_batch_size * STEP_COST / (2 * draws)
    return min(available, max(2, int(affordable)))


def metrics(
    step: int,
    losses: HeldOutLosses,
    base: HeldOutLosses,
    objective: Objective,
    *,
    last_good_step: int,
    weights: Mapping[str, float] | None = None,
    final: bool = False,
) -> Metrics:
    """Of the pairs in ``losses``, which ``base`` has too. Every figure is a mean over them, weighted by ``weights``.

    ``reference_corrected_accuracy`` counts pairs whose L_w - L_l fell against the base's; ties count one half.
    Raises NonFiniteLoss naming the pairs that have none.
    """
    bad = ~(losses.chosen + losses.rejected).isfinite().all(dim=1)
    if bad.any():
        named = [pair for pair, is_bad in zip(losses.pairs, bad.tolist(), strict=True) if is_bad]
        raise NonFiniteLoss(step, named, last_good_step)
    over = WeightedPairs(np.array([weights[pair] if weights else 1.0 for pair in losses.pairs]))
    base = base.of(losses.pairs)
    margins, base_margins = margins_of(losses), margins_of(base)
    values, base_values = (objective_values(one, base, objective) for one in (losses, base))
    accuracy_low, accuracy_high = over.interval(outcomes(margins))
    corrected = outcomes(margins - base_margins)
    corrected_low, corrected_high = over.interval(corrected)
    return Metrics(
        step=step,
        objective=over.mean(values),
        chosen_loss=over.mean(per_pair(losses.chosen)),
        rejected_loss=over.mean(per_pair(losses.rejected)),
        margin=over.mean(margins),
        implicit_accuracy=over.mean(outcomes(margins)),
        implicit_accuracy_low=accuracy_low,
        implicit_accuracy_high=accuracy_high,
        base_implicit_accuracy=over.mean(outcomes(base_margins)),
        base_chosen_loss=over.mean(per_pair(base.chosen)),
        base_rejected_loss=over.mean(per_pair(base.rejected)),
        reference_corrected_accuracy=over.mean(corrected),
        reference_corrected_accuracy_low=corrected_low,
        reference_corrected_accuracy_high=corrected_high,
        **over.change("objective", values - base_values),
        **over.change("chosen_loss", per_pair(losses.chosen) - per_pair(base.chosen)),
        **over.change("margin", margins - base_margins),
        bins=bins(losses, base, over),
        pairs=len(margins),
        draws=losses.chosen.shape[1],
        final=final,
    )


Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]  # one for each pair


def objective_values(losses: HeldOutLosses, base: HeldOutLosses, objective: Objective) -> Values:
    flat = [side.flatten() for side in (losses.chosen, losses.rejected, base.chosen, base.rejected)]
    return per_pair(objective.loss(PairLosses(*flat)).view_as(losses.chosen))


def per_pair(values: Tensor) -> Values:
    """Means over the draws of (pairs, draws)."""
    means: Values = values.double().mean(dim=1).numpy()
    return means


def margins_of(losses: HeldOutLosses) -> Values:
    """L_l - L_w, averaged over the draws."""
    return per_pair(losses.rejected.double() - losses.chosen.double())


def bins(losses: HeldOutLosses, base: HeldOutLosses, over: WeightedPairs) -> tuple[TimestepBin, ...]:
    """Each draw by itself: where along the noise the preference sits."""
    chosen, rejected, base_chosen, base_rejected = (
        side.double().numpy() for side in (losses.chosen, losses.rejected, base.chosen, base.rejected)
    )
    margins, base_margins = rejected - chosen, base_rejected - base_chosen
    return tuple(
        TimestepBin(
            timestep=timestep,
            chosen_loss=over.mean(chosen[:, draw]),
            rejected_loss=over.mean(rejected[:, draw]),
            margin=over.mean(margins[:, draw]),
            implicit_accuracy=over.mean(outcomes(margins[:, draw])),
            base_implicit_accuracy=over.mean(outcomes(base_margins[:, draw])),
        )
        for draw, timestep in enumerate(losses.timesteps)
    )


def outcomes(margins: Values) -> Values:
    """1 for a positive margin, 0 for a negative one, ties one half."""
    won: Values = (np.sign(margins) + 1) / 2
    return won


@dataclass(frozen=True)
class WeightedPairs:
    """Means over pairs, (pairs,) each: a pair of twice the weight counts as two."""

    weights: Values

    def mean(self, values: Values) -> float:
        return float(np.average(values, weights=self.weights))

    def interval(self, values: Values) -> tuple[float, float]:
        """95% percentile bootstrap of the mean over pairs, always with the same resamples."""
        resamples = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
        weights = self.weights[resamples]
        low, high = np.quantile((values[resamples] * weights).sum(axis=1) / weights.sum(axis=1), [0.025, 0.975])
        return float(low), float(high)

    def change(self, name: str, differences: Values) -> dict[str, float]:
        low, high = self.interval(differences)
        return {f"{name}_change": self.mean(differences), f"{name}_change_low": low, f"{name}_change_high": high}
