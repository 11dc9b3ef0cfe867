"""Supervised fine-tuning of an adapter on the chosen images; the rejected ones are looked at in validation alone."""

from __future__ import annotations

from trainer.cache import Cache
from trainer.conclude import conclude
from trainer.data import Need
from trainer.fit import fit
from trainer.interrupt import StopRequest
from trainer.objectives.objective import Objective
from trainer.objectives.sft import sft_loss
from trainer.prepare import measure_base, prepare
from trainer.probe import settle
from trainer.reporting import Phases
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.world import World

NEED = Need(rejected=False)


def train(run: Run, cache: Cache, phases: Phases, stop: StopRequest, world: World) -> Done:
    """Raises Interrupted after writing a checkpoint; call again to go on."""
    ready = prepare(run, cache, NEED, phases, stop, world)
    base = measure_base(ready)
    objective = Objective(lambda pair: sft_loss(pair.chosen), sees_rejected=False, sees_base=False)
    settled = settle(ready, objective, beta=None)
    best = fit(ready, objective, base, settled)
    return conclude(ready, objective, base, settled, best)
