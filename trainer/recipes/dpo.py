"""Diffusion-DPO on an adapter: as MaPO, with the network without its adapter as the reference."""

from __future__ import annotations

from trainer.beta import dpo_beta
from trainer.cache import Cache
from trainer.conclude import conclude
from trainer.data import Need
from trainer.fit import fit
from trainer.interrupt import StopRequest
from trainer.objectives.dpo import dpo_loss
from trainer.objectives.objective import Objective, seen
from trainer.prepare import measure_base, prepare
from trainer.probe import settle
from trainer.reporting import Phases
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.world import World

NEED = Need(rejected=True)


def train(run: Run, cache: Cache, phases: Phases, stop: StopRequest, world: World) -> Done:
    """Raises Interrupted after writing a checkpoint; call again to go on."""
    ready = prepare(run, cache, NEED, phases, stop, world)
    base = measure_base(ready)
    beta = dpo_beta(ready, base)
    objective = dpo(beta)
    settled = settle(ready, objective, beta)
    best = fit(ready, objective, base, settled)
    return conclude(ready, objective, base, settled, best)


def dpo(beta: float) -> Objective:
    return Objective(
        lambda pair: dpo_loss(
            pair.chosen, seen(pair.rejected), seen(pair.base_chosen), seen(pair.base_rejected), beta=beta
        ),
        sees_rejected=True,
        sees_base=True,
    )
