r"""Supervised fine-tuning and DreamBooth: the denoising errors themselves, or a sum of two."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.objectives.objective import Loss, PairLosses, Terms
from trainer.spec.methods import DreamboothHyperparameters, SftHyperparameters


def sft(_terms: Terms[SftHyperparameters]) -> Loss:
    return lambda pair: sft_loss(pair.chosen)


def dreambooth(terms: Terms[DreamboothHyperparameters]) -> Loss:
    """Held-out pairs have no class image: there it is the instance's loss alone."""

    def loss(pair: PairLosses) -> Tensor:
        if pair.prior is None:
            return sft_loss(pair.chosen)
        return dreambooth_loss(pair.chosen, pair.prior, prior_weight=terms.hyperparameters.prior_weight)

    return loss


def sft_loss(chosen: Tensor) -> Tensor:
    """$L_w$: the usual training of a diffusion model, on the chosen images. Shapes: (pairs,), returned in fp32."""
    return chosen.float()


def dreambooth_loss(chosen: Tensor, prior: Tensor, *, prior_weight: float) -> Tensor:
    r"""$L_w + \lambda L_{prior}$, arXiv 2208.12242 (eq. 2), the prior's images being sampled from the base.

    Shapes: both (pairs,), mean squared errors; returns (pairs,) fp32, not averaged.
    """
    with torch.autocast(chosen.device.type, enabled=False):
        return chosen.float() + prior_weight * prior.float()
