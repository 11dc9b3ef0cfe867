"""MaPO on an adapter: prepare, measure the base, choose beta, train, export."""

from __future__ import annotations

from trainer.beta import asked_of, mapo_beta
from trainer.cache import Cache
from trainer.conclude import conclude
from trainer.data import Need
from trainer.fit import fit
from trainer.interrupt import StopRequest
from trainer.objectives.mapo import paper_loss, reference_code_loss
from trainer.objectives.objective import Objective, seen
from trainer.prepare import measure_base, prepare
from trainer.probe import settle
from trainer.reporting import Phases
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.world import World


def train(run: Run, cache: Cache, phases: Phases, stop: StopRequest, world: World) -> Done:
    """Raises Interrupted after writing a checkpoint; call again to go on."""
    ready = prepare(run, cache, need_of(run), phases, stop, world)
    base = measure_base(ready)
    beta = mapo_beta(ready, base)
    if run.hyperparameters.form == "paper":
        objective = paper(beta)
    else:
        objective = reference_code(beta, ready.family.num_train_timesteps)
    settled = settle(ready, objective, beta)
    best = fit(ready, objective, base, settled)
    return conclude(ready, objective, base, settled, best)


def need_of(run: Run) -> Need:
    """The reference mismatch is measured where nothing else decides beta."""
    asked = asked_of(run)
    undecided = asked.form == "paper" and asked.beta == "auto" and asked.preset is None
    return Need(rejected=True, mismatch=undecided)


def paper(beta: float) -> Objective:
    return Objective(
        lambda pair: paper_loss(pair.chosen, seen(pair.rejected), beta=beta), sees_rejected=True, sees_base=False
    )


def reference_code(beta: float, num_train_timesteps: int) -> Objective:
    return Objective(
        lambda pair: reference_code_loss(
            pair.chosen, seen(pair.rejected), beta=beta, num_train_timesteps=num_train_timesteps
        ),
        sees_rejected=True,
        sees_base=False,
    )
