"""A job that might be made, with as much of it resolved as its files allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.spec.resolved import Resolved, resolve
from trainer.spec.run import RunSpec

CHECKPOINTS = 4  # of a run that does not say how many


@dataclass(frozen=True)
class Planned:
    """A job that might be made; ``pairs`` and ``resolved`` are None while its files are not read."""

    spec: RunSpec
    pairs: int | None
    resolved: Resolved | None

    @property
    def checkpoints(self) -> int:
        every = self.spec.checkpoints.every_steps
        if self.resolved is None or every is None:
            return CHECKPOINTS
        return math.ceil(self.resolved.max_steps / every)


def planned(spec: RunSpec, training: int | None, validation: int | None) -> Planned:
    """Pairs of the training file, and of the validation file, 0 without one; None while a file is not read."""
    if training is not None and validation is not None:
        held_out = 0 if validation else min(round(training * spec.validation.share), spec.validation.max_pairs)
        return Planned(spec, training + validation, resolve(spec.method, max(1, training - held_out)))
    hyperparameters = spec.method.hyperparameters
    said = "auto" not in (hyperparameters.max_steps, hyperparameters.batch_size) and hyperparameters.n_epochs == "auto"
    return Planned(spec, None, resolve(spec.method, 1) if said else None)
