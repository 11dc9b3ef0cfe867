r"""Diffusion-DPO, arXiv 2311.12908 (eq. 14): the pair's order, learned against a reference model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.objectives.objective import Loss, Terms, required
from trainer.spec.methods import DpoHyperparameters


def dpo(terms: Terms[DpoHyperparameters]) -> Loss:
    return lambda pair: dpo_loss(
        pair.chosen,
        required(pair.rejected),
        required(pair.reference_chosen),
        required(pair.reference_rejected),
        beta=terms.beta,
    )


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float
) -> Tensor:
    r"""$-\log\sigma(-\frac\beta2 [(L_w - L_l) - (L_w^{ref} - L_l^{ref})])$.

    A larger ``beta`` keeps the model nearer to the reference; 5000 for SDXL and 2000 for SD 1.5 in the paper's code,
    where the timestep's weight is 1.

    Shapes: all (pairs,), mean squared errors; returns (pairs,) fp32, not averaged.
    """
    with torch.autocast(chosen.device.type, enabled=False):
        margin = (chosen.float() - rejected.float()) - (reference_chosen.float() - reference_rejected.float())
        return -F.logsigmoid(-beta / 2 * margin)
