"""The training recipe: a run from top to bottom, and the table of what differs between methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainer.cache.cache import Cache
from trainer.data.encoding import EncodedPair
from trainer.data.pairs import DataRequirements
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.held_out import HELD_OUT_BATCH, HeldOutLosses
from trainer.export.model_card import Card
from trainer.export.results import evaluate_best, write_results
from trainer.objectives.dco import dco
from trainer.objectives.dpo import dpo
from trainer.objectives.mapo import mapo
from trainer.objectives.objective import Loss, Objective, Terms
from trainer.objectives.sft import dreambooth, sft
from trainer.run_directory.run import Run
from trainer.runtime.distributed import ProcessGroup
from trainer.runtime.event_stream import PhaseReporter, Report
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Done
from trainer.spec.method_facts import MethodFacts, MethodName, method_facts
from trainer.spec.methods import DreamboothHyperparameters, Hyperparameters, MapoHyperparameters, Method
from trainer.training.beta import BaseMeasurements, default_beta, mapo_beta
from trainer.training.loop import fit
from trainer.training.memory_probe import resolve_plan
from trainer.training.setup import prepare

Own = TypeVar("Own", bound=Hyperparameters)


def default_requirements(facts: MethodFacts, _hyperparameters: Hyperparameters) -> DataRequirements:
    return DataRequirements(rejected=facts.needs_rejected)


def mapo_requirements(facts: MethodFacts, hyperparameters: MapoHyperparameters) -> DataRequirements:
    """The reference mismatch is measured where nothing else decides beta."""
    undecided = hyperparameters.form == "paper" and hyperparameters.beta == "auto" and hyperparameters.preset is None
    return DataRequirements(rejected=facts.needs_rejected, mismatch=undecided)


def dreambooth_requirements(facts: MethodFacts, hyperparameters: DreamboothHyperparameters) -> DataRequirements:
    """Class images are sampled only where their loss counts."""
    prompt = hyperparameters.instance_prompt
    if hyperparameters.prior_weight == 0 or hyperparameters.class_prompt is None:
        return DataRequirements(rejected=facts.needs_rejected, instance_prompt=prompt)
    return DataRequirements(
        rejected=facts.needs_rejected,
        instance_prompt=prompt,
        class_prompt=hyperparameters.class_prompt,
        class_images=hyperparameters.class_images,
    )


@dataclass(frozen=True)
class Recipe(Generic[Own]):
    """``loss`` makes a method's loss; ``requirements`` says what data it takes; ``beta`` says what beta becomes.

    The defaults follow from the method's facts alone.
    """

    loss: Callable[[Terms[Own]], Loss]
    requirements: Callable[[MethodFacts, Own], DataRequirements] = default_requirements
    beta: Callable[[MethodFacts, Own, BaseMeasurements, Report], float | None] = default_beta


RECIPES: Mapping[MethodName, Recipe[Any]] = {
    "mapo": Recipe(mapo, requirements=mapo_requirements, beta=mapo_beta),
    "dpo": Recipe(dpo),
    "sft": Recipe(sft),
    "dco": Recipe(dco),
    "dreambooth": Recipe(dreambooth, requirements=dreambooth_requirements),
}


def train(
    run: Run, card: Card, cache: Cache, phases: PhaseReporter, stop: StopRequest, process_group: ProcessGroup
) -> Done:
    """Raises Interrupted after writing a checkpoint; call again to go on."""
    method = run.spec.method
    recipe, facts = recipe_of(method), method_facts(method.type)
    # Open the base, encode pairs and prompts once, sample missing images, and load the last checkpoint.
    context, evaluator, resumed, mismatch = prepare(run, cache, requirements_of(method), phases, stop, process_group)
    # Measure the base on the held-out pairs: what the adapter is compared with.
    base = resumed.base if resumed else measure_base(evaluator, context.dataset.held_out)
    if resumed:
        beta = resumed.plan.beta
    else:
        prediction = context.trainable.denoiser.prediction
        measured = BaseMeasurements(run.spec.base.family, prediction, base.chosen.mean().item(), mismatch)
        beta = recipe.beta(facts, method.hyperparameters, measured, phases.report)
    objective = objective_of(method, beta, context.family.num_train_timesteps)
    # Find the largest batch that fits the device.
    plan = resolve_plan(context, objective, beta, resumed.plan if resumed else None)
    # Train, with an evaluation and a checkpoint every so many steps.
    best, plan = fit(context, evaluator, objective, base, plan, resumed)
    # Evaluate the best adapter on all held-out pairs, sample from it, and write the files of the result.
    evaluate_best(context, evaluator, objective, base, best)
    return write_results(context, card, plan, best)


def measure_base(evaluator: Evaluator, held_out: Sequence[EncodedPair]) -> HeldOutLosses:
    """The held-out pairs before training; the best adapter is measured on the same draws at the end."""
    evaluator.phases.enter("validating")
    with evaluator.denoiser.without_adapter():
        return evaluator.measure(held_out, HELD_OUT_BATCH)


def recipe_of(method: Method) -> Recipe[Any]:
    """Raises LookupError, which names the method and this table, where the row is missing."""
    if method.type not in RECIPES:
        raise LookupError(f"the method {method.type!r} has no row in RECIPES (trainer/recipe.py)")
    return RECIPES[method.type]


def requirements_of(method: Method) -> DataRequirements:
    return recipe_of(method).requirements(method_facts(method.type), method.hyperparameters)


def objective_of(method: Method, beta: float | None, num_train_timesteps: int) -> Objective:
    """The method's loss at this beta, and which of a pair's losses have to be computed for it."""
    facts = method_facts(method.type)
    loss = recipe_of(method).loss(Terms(method.hyperparameters, beta, num_train_timesteps))
    return Objective(loss, uses_rejected=facts.needs_rejected, uses_reference=facts.needs_reference)
