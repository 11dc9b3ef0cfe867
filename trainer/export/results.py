"""The end of a run: the best adapter, measured once more on all held-out pairs, drawn with, and exported."""

from __future__ import annotations

from trainer.data.pairs import captions
from trainer.evaluation.held_out import HeldOutLosses, fixed_batches, metrics
from trainer.export.export import export
from trainer.export.model_card import Card
from trainer.objectives.objective import Objective
from trainer.run_directory.output import Pictures, finished
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.runtime.errors import OutOfMemory
from trainer.sampling.held_out_sheet import held_out_sheet
from trainer.sampling.samples import FOLDER, GRID
from trainer.spec.events import Done, Warned
from trainer.training.checkpoint import Best, Settled
from trainer.training.setup import HELD_OUT_TOGETHER, Ready


def evaluate(ready: Ready, objective: Objective, base: HeldOutLosses, best: Best) -> None:
    """Leaves the network with the best adapter."""
    ready.phases.enter("validating")
    ready.learner.load_weights(best.adapter)
    measured = ready.measure(ready.data.held_out, HELD_OUT_TOGETHER)
    ready.note(metrics(best.step, measured, base, objective, last_good_step=best.step, final=True))


def write_results(ready: Ready, card: Card, settled: Settled, best: Best) -> Done:
    """The main process writes ``output/``; the others read what it wrote."""
    return ready.world.main_first(
        lambda: exported(ready, card, settled, best) if ready.world.is_main else already(ready)
    )


def exported(ready: Ready, card: Card, settled: Settled, best: Best) -> Done:
    shown = pictures(ready)
    ready.phases.enter("exporting")
    (fixed,) = fixed_batches(ready.data.held_out[:1], ready.cache, [ready.family.timestep_at(0.5)])
    return export(
        ready.run,
        card,
        ready.learner.denoiser,
        fixed.to(ready.device),
        metrics=ready.history.read(),
        best_step=best.step,
        settled=settled,
        native_size=ready.family.native_size,
        pictures=shown,
    )


def pictures(ready: Ready) -> Pictures:
    """The samples that were asked for, as they stand; else the held-out sheet, drawn now.

    A device without room for a decoder beside what has been trained costs the pictures, not the adapter.
    """
    asked = ready.run.spec.sampling
    if asked.prompts:
        return Pictures((ready.run.directory / FOLDER / GRID).read_bytes())
    if not asked.held_out:
        return Pictures(None, "sampling.held_out is 0")
    ready.phases.enter("sampling")
    free_memory(ready.device)
    try:
        with explain_out_of_memory(ready.device, asked.held_out):
            return Pictures(held_out_pictures(ready))
    except OutOfMemory:
        reason = "the device had no memory left to draw them"
        ready.phases.report(Warned(code="no_samples", message=f"No samples are among the results: {reason}."))
        return Pictures(None, reason)


def held_out_pictures(ready: Ready) -> bytes:
    asked = ready.run.spec.sampling
    sheet = held_out_sheet(
        [captions(pair, ready.run, ready.need)[0] for pair in ready.pairs.held_out],
        ready.encoder.prompt_key,
        columns=asked.held_out,
        size=ready.encoder.native,
        seed=asked.seed,
    )
    return sheet.draw(ready.artist, ready.learner.denoiser.without_adapter, ready.check, ready.phases.progress)


def already(ready: Ready) -> Done:
    done = finished(ready.run)
    if done is None:
        raise RuntimeError("the main process has written no output")
    return done
