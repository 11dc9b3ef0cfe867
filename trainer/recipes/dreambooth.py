"""DreamBooth on an adapter: the chosen images under the instance prompt, beside class images that the base draws."""

from __future__ import annotations

from torch import Tensor

from trainer.cache import Cache
from trainer.conclude import conclude
from trainer.data import Need
from trainer.fit import fit
from trainer.interrupt import StopRequest
from trainer.objectives.objective import Objective, PairLosses
from trainer.objectives.sft import dreambooth_loss, sft_loss
from trainer.prepare import measure_base, prepare
from trainer.probe import settle
from trainer.reporting import Phases
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.spec.methods import DreamboothHyperparameters, DreamboothMethod
from trainer.world import World


def train(run: Run, cache: Cache, phases: Phases, stop: StopRequest, world: World) -> Done:
    """Raises Interrupted after writing a checkpoint; call again to go on."""
    asked = asked_of(run)
    ready = prepare(run, cache, need_of(asked), phases, stop, world)
    base = measure_base(ready)
    objective = dreambooth(asked.prior_weight)
    settled = settle(ready, objective, beta=None)
    best = fit(ready, objective, base, settled)
    return conclude(ready, objective, base, settled, best)


def asked_of(run: Run) -> DreamboothHyperparameters:
    if not isinstance(run.spec.method, DreamboothMethod):
        raise TypeError(f"not a DreamBooth run: {run.spec.method.type}")
    return run.spec.method.hyperparameters


def need_of(asked: DreamboothHyperparameters) -> Need:
    if asked.prior_weight == 0 or asked.class_prompt is None:
        return Need(rejected=False, instance_prompt=asked.instance_prompt)
    return Need(
        rejected=False,
        instance_prompt=asked.instance_prompt,
        class_prompt=asked.class_prompt,
        class_images=asked.class_images,
    )


def dreambooth(prior_weight: float) -> Objective:
    """Held-out pairs have no class image: there it is the instance's loss alone."""

    def loss(pair: PairLosses) -> Tensor:
        if pair.prior is None:
            return sft_loss(pair.chosen)
        return dreambooth_loss(pair.chosen, pair.prior, prior_weight=prior_weight)

    return Objective(loss, sees_rejected=False, sees_base=False)
