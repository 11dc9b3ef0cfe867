"""The end of every recipe: the best adapter, measured once more on all held-out pairs, and exported."""

from __future__ import annotations

from trainer.checkpoint import Best, Settled
from trainer.export import export
from trainer.objectives.objective import Objective
from trainer.output import finished
from trainer.prepare import HELD_OUT_TOGETHER, Ready
from trainer.spec.events import Done
from trainer.validation import HeldOutLosses, fixed_batches, metrics


def conclude(ready: Ready, objective: Objective, base: HeldOutLosses, settled: Settled, best: Best) -> Done:
    ready.phases.enter("validating")
    ready.learner.load_weights(best.adapter)
    measured = ready.measure(ready.data.held_out, HELD_OUT_TOGETHER)
    ready.note(metrics(best.step, measured, base, objective, last_good_step=best.step, final=True))

    ready.phases.enter("exporting")
    return ready.world.main_first(lambda: exported(ready, settled, best) if ready.world.is_main else already(ready))


def exported(ready: Ready, settled: Settled, best: Best) -> Done:
    (fixed,) = fixed_batches(ready.data.held_out[:1], ready.cache, [ready.family.timestep_at(0.5)])
    return export(
        ready.run,
        ready.learner.denoiser,
        fixed.to(ready.device),
        metrics=ready.history.read(),
        best_step=best.step,
        settled=settled,
        native_size=ready.family.native_size,
    )


def already(ready: Ready) -> Done:
    done = finished(ready.run)
    if done is None:
        raise RuntimeError("the main process has written no output")
    return done
