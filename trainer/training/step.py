"""One optimizer step, without waiting for the device: the losses stay there until they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.batches import Batch
from trainer.evaluation.losses import denoising_losses, reference_losses
from trainer.families.family import Denoiser
from trainer.objectives.objective import Objective, PairLosses
from trainer.runtime.device import explain_out_of_memory, free_memory, peak_memory
from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from trainer.runtime.errors import OutOfMemory
from trainer.runtime.hardware_errors import release_frames


class GradientOverflow(Exception):
    """The scaled gradient of an fp16 base was not finite: nothing was updated, a smaller scale may do."""


@dataclass
class GradientScale:
    """The factor of the loss on an fp16 base (arXiv 1710.03740): unscaled, activations' gradients would vanish.

    The adapter's own gradients, in fp32, are scaled back. After an overflow the factor halves, down to ``SMALLEST``;
    after ``GROWS_AFTER`` steps without one it doubles. Other precisions have the factor 1.
    """

    value: float = 4096.0
    good_steps: int = 0

    @property
    def may_shrink(self) -> bool:
        return self.value > SMALLEST

    def shrink(self) -> None:
        self.value, self.good_steps = self.value / 2, 0

    def count_good_step(self) -> None:
        self.good_steps += 1
        if self.good_steps == GROWS_AFTER:
            self.value, self.good_steps = min(2 * self.value, LARGEST), 0


SMALLEST, LARGEST, GROWS_AFTER = 2.0**-10, 2.0**24, 2000


@dataclass(frozen=True)
class StepRecord:
    """``losses`` (2 or 3, pairs): weighted objective, chosen and, where it is used, rejected loss of each pair.

    They are on the device, as ``grad_norm`` is. ``stop_requested`` says whether any process received a stop request.
    """

    step: int
    pairs: tuple[str, ...]
    losses: Tensor
    grad_norm: Tensor
    learning_rate: float
    stop_requested: bool = False


def weighted(values: Tensor, batch: Batch) -> Tensor:
    """The objective's values times the pairs' weights, (pairs,) each."""
    return values if batch.weights is None else values * batch.weights


def backward_joint(denoiser: Denoiser, batch: Batch, objective: Objective, pairs: float) -> Tensor:
    """Add this batch's part of the gradient of the mean weighted objective over ``pairs``.

    Returns ``StepRecord.losses``.
    """
    reference_chosen, reference_rejected = reference_losses(denoiser, batch, objective)
    chosen, *rejected = denoising_losses(denoiser, batch)
    prior = denoising_losses(denoiser, batch.prior)[0] if batch.prior else None
    losses = PairLosses(chosen, rejected[0] if rejected else None, reference_chosen, reference_rejected, prior)
    values = weighted(objective.loss(losses), batch)
    (values.sum() / pairs).backward()  # type: ignore[no-untyped-call]
    return torch.stack([values, chosen, *rejected]).detach()


def backward_streamed(denoiser: Denoiser, batch: Batch, objective: Objective, pairs: float) -> Tensor:
    r"""As ``backward_joint``, one side's activations in memory at a time, for one more forward pass.

    The objective depends on the network through the losses alone, so its gradient is
    $\sum_s \frac{\partial\ell}{\partial L_s} \nabla L_s$: a pass without gradient gives the losses and with them the
    factors, then each side is run again and sent back weighted by its own.
    """
    parts = [batch.side(index) for index in range(batch.sides)] + ([batch.prior] if batch.prior else [])
    reference_chosen, reference_rejected = reference_losses(denoiser, batch, objective)
    with torch.no_grad():
        measured = [denoising_losses(denoiser, part)[0] for part in parts]
    leaves = [losses.requires_grad_() for losses in measured]
    chosen, *others = leaves
    prior = others.pop() if batch.prior else None
    losses = PairLosses(chosen, others[0] if others else None, reference_chosen, reference_rejected, prior)
    values = weighted(objective.loss(losses), batch)
    factors = torch.autograd.grad(values.sum() / pairs, leaves)
    for part, factor in zip(parts, factors, strict=True):
        (denoising_losses(denoiser, part)[0] * factor).sum().backward()  # type: ignore[no-untyped-call]
    return torch.stack([values, chosen, *others]).detach()


def training_step(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    objective: Objective,
    *,
    step: int,
    learning_rate: float,
    max_grad_norm: float,
    streamed: bool = False,
    process_group: ProcessGroup = SINGLE_PROCESS,
    pairs: Sequence[str] | None = None,
    stop_requested: bool = False,
    gradient_scale: GradientScale | None = None,
) -> StepRecord:
    """The gradient of the mean weighted objective over all pairs, clipped, and one update of the optimizer.

    Among several processes ``batches`` are this one's share and ``pairs`` names those of all; every process comes out
    with the same update and the same record. Raises OutOfMemory in all of them, before any update, if the backward
    pass does not fit in one of them. Raises GradientOverflow, before any update too, where a smaller
    ``gradient_scale`` of an fp16 base may make the gradient finite.
    """
    own = [name for batch in batches for name in batch.pairs]
    names = own if pairs is None else pairs
    backward = backward_streamed if streamed else backward_joint
    gradient_scale = gradient_scale or GradientScale()
    scale = gradient_scale.value if denoiser.dtype == torch.float16 else 1.0
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device, batch_size = parameters[0].device, max((len(batch.pairs) for batch in batches), default=0)
    failure: OutOfMemory | None = None
    try:
        with explain_out_of_memory(device, batch_size):
            losses = [backward(denoiser, batch, objective, len(names) / scale) for batch in batches]
    except OutOfMemory as error:
        release_frames(error)
        failure, losses = error, []
        optimizer.zero_grad(set_to_none=True)
        free_memory(device)
    if process_group.size > 1:
        everything, stop_requested, any_failed = reduce_gradients(
            process_group, parameters, losses, own, names, objective, stop_requested, failed=failure is not None
        )
        if any_failed:
            failure = failure or OutOfMemory("device", peak_memory(device), batch_size)
    if failure is not None:
        optimizer.zero_grad(set_to_none=True)
        raise failure
    if process_group.size == 1:
        everything = torch.cat(losses, dim=1)
    if denoiser.dtype == torch.float16:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(scale)
    grad_norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    if denoiser.dtype == torch.float16:
        # A loss that is not finite itself stays so at any scale: it is reported with the record.
        if gradient_scale.may_shrink and not grad_norm.isfinite() and everything.isfinite().all():
            optimizer.zero_grad(set_to_none=True)
            raise GradientOverflow
        gradient_scale.count_good_step()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepRecord(step, tuple(names), everything, grad_norm, learning_rate, stop_requested)


def reduce_gradients(
    process_group: ProcessGroup,
    parameters: Sequence[nn.Parameter],
    losses: list[Tensor],
    own: Sequence[str],
    names: Sequence[str],
    objective: Objective,
    stop_requested: bool,
    *,
    failed: bool,
) -> tuple[Tensor, bool, bool]:
    """Gradients of all processes into ``parameters``.

    Returns all pairs' losses, whether any process is to stop, and whether any failed.

    One message for everything: losses are at their pair's index, zeros elsewhere, so that their sum is themselves.
    """
    device = parameters[0].device
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    everything = torch.zeros(3 if objective.uses_rejected else 2, len(names), device=device)
    if losses:
        positions = {name: position for position, name in enumerate(names)}
        everything[:, [positions[name] for name in own]] = torch.cat(losses, dim=1)
    flags = torch.tensor([float(stop_requested), float(failed)], device=device)
    message = torch.cat([*(gradient.flatten() for gradient in gradients), everything.flatten(), flags])
    process_group.all_reduce(message)
    *parts, sums, flags = torch.split(message, [*map(torch.Tensor.numel, gradients), everything.numel(), len(flags)])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    any_stop, any_failed = flags.tolist()
    return sums.view_as(everything), bool(any_stop), bool(any_failed)
