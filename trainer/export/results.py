"""Evaluate the best adapter on all held-out pairs, sample from it and write ``output/``."""

from __future__ import annotations

from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.held_out import HELD_OUT_BATCH, HeldOutLosses, fixed_batches, metrics
from trainer.export.export import export
from trainer.export.model_card import Card
from trainer.objectives.objective import Objective
from trainer.run_directory.output import SampleImages, finished_result
from trainer.runtime.device import explain_out_of_memory, free_memory
from trainer.runtime.errors import OutOfMemory
from trainer.sampling.held_out_grid import held_out_grid
from trainer.sampling.samples import FOLDER, GRID
from trainer.spec.events import Done, Warned
from trainer.training.checkpoint import BestAdapter, ResolvedPlan
from trainer.training.setup import TrainingContext


def evaluate_best(
    context: TrainingContext, evaluator: Evaluator, objective: Objective, base: HeldOutLosses, best: BestAdapter
) -> None:
    """Leaves the network with the best adapter."""
    context.phases.enter("validating")
    context.trainable.load_weights(best.adapter)
    measured = evaluator.measure(context.dataset.held_out, HELD_OUT_BATCH)
    weights = context.dataset.held_out_weights
    evaluator.record(
        metrics(best.step, measured, base, objective, weights=weights, last_good_step=best.step, final=True)
    )


def write_results(context: TrainingContext, card: Card, plan: ResolvedPlan, best: BestAdapter) -> Done:
    """The main process writes ``output/``; the others read what it wrote."""
    return context.process_group.main_first(
        lambda: export_best(context, card, plan, best) if context.process_group.is_main else read_results(context)
    )


def export_best(context: TrainingContext, card: Card, plan: ResolvedPlan, best: BestAdapter) -> Done:
    images = sample_images(context)
    context.phases.enter("exporting")
    family = context.family
    (fixed,) = fixed_batches(context.dataset.held_out[:1], context.encoder.cache, [family.timestep_at(0.5)])
    return export(
        context.run,
        card,
        context.trainable.denoiser,
        fixed.to(context.device),
        metrics=context.metrics_log.read(),
        best_step=best.step,
        plan=plan,
        native_size=family.native_size,
        missing_parts=family.missing_parts,
        sample_images=images,
    )


def sample_images(context: TrainingContext) -> SampleImages:
    """The grid of the requested samples; without requested samples, the held-out grid, sampled now.

    If the device has no memory left for a decoder, the run goes without sample images and still exports its adapter.
    """
    options = context.run.spec.sampling
    if options.prompts:
        grid = context.run.directory / FOLDER / GRID
        if not grid.exists():
            return SampleImages(None, "the device had no memory left to draw them")
        return SampleImages(grid.read_bytes())
    if not options.held_out:
        return SampleImages(None, "sampling.held_out is 0")
    context.phases.enter("sampling")
    free_memory(context.device)
    try:
        with explain_out_of_memory(context.device, options.held_out):
            return SampleImages(held_out_grid_png(context))
    except OutOfMemory:
        reason = "the device had no memory left to sample them"
        context.phases.report(Warned(code="no_samples", message=f"No samples are among the results: {reason}."))
        return SampleImages(None, reason)


def held_out_grid_png(context: TrainingContext) -> bytes:
    options = context.run.spec.sampling
    grid = held_out_grid(
        context.dataset.held_out_captions,
        context.encoder.prompt_key,
        columns=options.held_out,
        size=context.encoder.native,
        seed=options.seed,
    )
    return grid.sample(
        context.sampler, context.trainable.denoiser.without_adapter, context.check, context.phases.progress
    )


def read_results(context: TrainingContext) -> Done:
    done = finished_result(context.run)
    if done is None:
        raise RuntimeError("the main process has written no output")
    return done
