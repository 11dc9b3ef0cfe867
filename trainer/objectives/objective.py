"""The types of an objective: a pair's losses, the ones it uses, and the terms of a method's loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from trainer.spec.methods import Hyperparameters

Own = TypeVar("Own", bound=Hyperparameters, covariant=True)


@dataclass(frozen=True)
class PairLosses:
    """Mean squared denoising errors, (pairs,) each, under the noise and timestep that a pair's images share.

    ``reference_*`` are those of the reference model, the network without its adapter; ``prior`` is the loss of each
    pair's class image. ``None`` for what the objective does not use.
    """

    chosen: Tensor
    rejected: Tensor | None = None
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None
    prior: Tensor | None = None


Loss = Callable[[PairLosses], Tensor]


@dataclass(frozen=True)
class Objective:
    """``loss`` gives each pair's value, (pairs,), not averaged."""

    loss: Loss
    uses_rejected: bool
    uses_reference: bool


@dataclass(frozen=True)
class Terms(Generic[Own]):
    """What a method's loss is made from: its hyperparameters, the value of beta, and the noise schedule's length.

    ``chosen_beta`` is None for a method without one.
    """

    hyperparameters: Own
    chosen_beta: float | None
    num_train_timesteps: int

    @property
    def beta(self) -> float:
        if self.chosen_beta is None:
            raise ValueError("this method has no beta: give its row in trainer/recipe.py a rule for it")
        return self.chosen_beta


def required(losses: Tensor | None) -> Tensor:
    """For objectives: the losses that the method's facts say they need."""
    if losses is None:
        raise ValueError(
            "these losses were not computed: needs_rejected and needs_reference of the method's facts must say what "
            "the loss takes"
        )
    return losses
