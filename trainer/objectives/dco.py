r"""Direct consistency optimization (DCO), arXiv 2402.12004: fit the chosen images better than the reference does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.objectives.objective import Loss, Terms, required
from trainer.spec.methods import DcoHyperparameters


def dco(terms: Terms[DcoHyperparameters]) -> Loss:
    return lambda pair: dco_loss(pair.chosen, required(pair.reference_chosen), beta=terms.beta)


def dco_loss(chosen: Tensor, reference_chosen: Tensor, *, beta: float) -> Tensor:
    r"""$-\log\sigma(-\beta (L_w - L_w^{ref}))$.

    Once an image is fitted clearly better than by the reference its gradient fades, which keeps the model near it; a
    larger ``beta`` is satisfied sooner (1000 in the paper).

    Shapes: all (pairs,), mean squared errors; returns (pairs,) fp32, not averaged.
    """
    with torch.autocast(chosen.device.type, enabled=False):
        return -F.logsigmoid(-beta * (chosen.float() - reference_chosen.float()))
