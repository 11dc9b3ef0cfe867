"""How strongly a run pushes, where the user leaves it to pairtune.

The papers' betas were found for noise prediction. In every objective beta multiplies a difference of losses, so for a
network that predicts something else, whose losses are of another size, "auto" divides it by how much larger they are:
the base's loss on the held-out chosen images, against EPSILON_LOSS. Nobody has published betas for such networks; this
is a rule of ours, and an event reports what it gave.
"""

from __future__ import annotations

from trainer.evaluation.held_out import HeldOutLosses
from trainer.evaluation.reference_mismatch import preset_for
from trainer.spec.events import BetaChosen
from trainer.spec.family_facts import family_facts
from trainer.spec.method_facts import method_facts
from trainer.spec.methods import PRESET_BETAS, Hyperparameters, MapoHyperparameters
from trainer.training.setup import TrainingContext

EPSILON_LOSS = 0.1  # what we take as usual for SDXL's noise prediction, averaged over timesteps


def default_beta(context: TrainingContext, hyperparameters: Hyperparameters, base: HeldOutLosses) -> float | None:
    """As given, else what the method's facts say for the family; None for a method without beta."""
    spec = context.run.spec
    if (earlier := _earlier(context, getattr(hyperparameters, "beta", None))) is not None:
        return earlier
    facts, family = method_facts(spec.method.type), spec.base.family
    if facts.auto_beta is None:
        return None
    return scaled(context, base, facts.auto_beta(family_facts(family)), f"{facts.title}'s for {family}")


def mapo_beta(context: TrainingContext, hyperparameters: MapoHyperparameters, base: HeldOutLosses) -> float:
    """As given, else the preset's or by the measured reference mismatch."""
    if (earlier := _earlier(context, hyperparameters.beta)) is not None:
        return earlier
    if hyperparameters.form == "reference-code":
        return 0.1  # that code's weight of the margin term, which is no factor of losses
    if hyperparameters.preset is not None:
        return scaled(context, base, PRESET_BETAS[hyperparameters.preset], f"preset {hyperparameters.preset}")
    if context.mismatch is None:
        return scaled(
            context, base, PRESET_BETAS["general"], "preset general, as the reference mismatch was not measured"
        )
    preset = preset_for(context.mismatch.similarity, context.mismatch.features)
    measured = f"{context.mismatch.similarity:.2f} ({context.mismatch.features})"
    reason = f"the base's own samples and the chosen images have a similarity of {measured}: as far apart as {preset}"
    return scaled(context, base, PRESET_BETAS[preset], reason)


def _earlier(context: TrainingContext, given: float | str | None) -> float | None:
    """The user's, or what an earlier call of this run chose."""
    if isinstance(given, float):
        return given
    return context.resumed.plan.beta if context.resumed else None


def scaled(context: TrainingContext, base: HeldOutLosses, beta: float, reason: str) -> float:
    """For the size of this network's losses; reports what was chosen and why."""
    prediction = context.learner.denoiser.prediction
    if prediction != "epsilon":
        size = base.chosen.mean().item()
        reason = f"{reason}, {beta:g} for losses of {EPSILON_LOSS:g}; this base's {prediction} losses are {size:.3g}"
        beta = beta * EPSILON_LOSS / size
    context.phases.report(BetaChosen(beta=beta, reason=reason))
    return beta
