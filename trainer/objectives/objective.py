"""What an objective sees of a pair, and which of it has to be computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairLosses:
    """Mean squared denoising errors, (pairs,) each, under the noise and timestep that a pair's images share.

    ``base_*`` are those of the network without its adapter; ``prior`` belongs to the class image drawn beside each
    pair. ``None`` for what the objective does not see.
    """

    chosen: Tensor
    rejected: Tensor | None = None
    base_chosen: Tensor | None = None
    base_rejected: Tensor | None = None
    prior: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """``loss`` gives each pair's value, (pairs,), not averaged."""

    loss: Callable[[PairLosses], Tensor]
    sees_rejected: bool
    sees_base: bool


def seen(losses: Tensor | None) -> Tensor:
    """For objectives: the losses that they said they see."""
    if losses is None:
        raise ValueError("these losses were not computed: sees_rejected and sees_base must say what the loss looks at")
    return losses
