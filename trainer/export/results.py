"""The end of a run: the best adapter, measured once more on all held-out pairs, drawn with, and exported."""

from __future__ import annotations

from trainer.data.pairs import captions
from trainer.evaluation.held_out import HeldOutLosses, fixed_batches, metrics
from trainer.export.export import export
from trainer.export.model_card import Card
from trainer.objectives.objective import Objective
from trainer.run_directory.output import SampleImages, finished
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.runtime.errors import OutOfMemory
from trainer.sampling.held_out_sheet import held_out_sheet
from trainer.sampling.samples import FOLDER, GRID
from trainer.spec.events import Done, Warned
from trainer.training.checkpoint import BestAdapter, ResolvedPlan
from trainer.training.setup import HELD_OUT_BATCH, TrainingContext


def evaluate(context: TrainingContext, objective: Objective, base: HeldOutLosses, best: BestAdapter) -> None:
    """Leaves the network with the best adapter."""
    context.phases.enter("validating")
    context.learner.load_weights(best.adapter)
    measured = context.measure(context.data.held_out, HELD_OUT_BATCH)
    context.note(metrics(best.step, measured, base, objective, last_good_step=best.step, final=True))


def write_results(context: TrainingContext, card: Card, plan: ResolvedPlan, best: BestAdapter) -> Done:
    """The main process writes ``output/``; the others read what it wrote."""
    return context.process_group.main_first(
        lambda: exported(context, card, plan, best) if context.process_group.is_main else already(context)
    )


def exported(context: TrainingContext, card: Card, plan: ResolvedPlan, best: BestAdapter) -> Done:
    shown = pictures(context)
    context.phases.enter("exporting")
    (fixed,) = fixed_batches(context.data.held_out[:1], context.cache, [context.family.timestep_at(0.5)])
    return export(
        context.run,
        card,
        context.learner.denoiser,
        fixed.to(context.device),
        metrics=context.metrics_log.read(),
        best_step=best.step,
        plan=plan,
        native_size=context.family.native_size,
        pictures=shown,
    )


def pictures(context: TrainingContext) -> SampleImages:
    """The samples that were asked for, as they stand; else the held-out sheet, drawn now.

    A device without room for a decoder beside what has been trained costs the pictures, not the adapter.
    """
    asked = context.run.spec.sampling
    if asked.prompts:
        return SampleImages((context.run.directory / FOLDER / GRID).read_bytes())
    if not asked.held_out:
        return SampleImages(None, "sampling.held_out is 0")
    context.phases.enter("sampling")
    free_memory(context.device)
    try:
        with explain_out_of_memory(context.device, asked.held_out):
            return SampleImages(held_out_pictures(context))
    except OutOfMemory:
        reason = "the device had no memory left to draw them"
        context.phases.report(Warned(code="no_samples", message=f"No samples are among the results: {reason}."))
        return SampleImages(None, reason)


def held_out_pictures(context: TrainingContext) -> bytes:
    asked = context.run.spec.sampling
    sheet = held_out_sheet(
        [captions(pair, context.run, context.requirements)[0] for pair in context.pairs.held_out],
        context.encoder.prompt_key,
        columns=asked.held_out,
        size=context.encoder.native,
        seed=asked.seed,
    )
    return sheet.draw(context.sampler, context.learner.denoiser.without_adapter, context.check, context.phases.progress)


def already(context: TrainingContext) -> Done:
    done = finished(context.run)
    if done is None:
        raise RuntimeError("the main process has written no output")
    return done
