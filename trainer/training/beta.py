"""Choose beta, the strength of the preference objective, where the user left it "auto".

The papers' betas were found for noise prediction. In every objective beta multiplies a difference of losses, so for a
network that predicts something else, whose losses are of another size, "auto" divides it by how much larger they are:
the base's loss on the held-out chosen images, against EPSILON_LOSS. Nobody has published betas for such networks; this
is a rule of ours, and an event reports what it gave.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.evaluation.reference_mismatch import preset_for
from trainer.families.family import Prediction
from trainer.runtime.event_stream import Report
from trainer.spec.events import BetaChosen, MismatchMeasured
from trainer.spec.family_facts import FamilyName, family_facts
from trainer.spec.method_facts import MethodFacts
from trainer.spec.methods import PRESET_BETAS, Hyperparameters, MapoHyperparameters

EPSILON_LOSS = 0.1  # what we take as usual for SDXL's noise prediction, averaged over timesteps


@dataclass(frozen=True)
class BaseMeasurements:
    """What is known of the base: ``loss`` is its mean loss on the held-out chosen images; ``mismatch`` may be None."""

    family: FamilyName
    prediction: Prediction
    loss: float
    mismatch: MismatchMeasured | None


def default_beta(
    facts: MethodFacts, hyperparameters: Hyperparameters, base: BaseMeasurements, report: Report
) -> float | None:
    """As given, else what the method's facts say for the family; None for a method without beta."""
    given = getattr(hyperparameters, "beta", None)
    if isinstance(given, float):
        return given
    if facts.auto_beta is None:
        return None
    return scaled_beta(facts.auto_beta(family_facts(base.family)), f"{facts.title}'s for {base.family}", base, report)


def mapo_beta(
    _facts: MethodFacts, hyperparameters: MapoHyperparameters, base: BaseMeasurements, report: Report
) -> float:
    """As given, else the preset's or by the measured reference mismatch."""
    if isinstance(hyperparameters.beta, float):
        return hyperparameters.beta
    if hyperparameters.form == "reference-code":
        return 0.1  # that code's weight of the margin term, which is no factor of losses
    if hyperparameters.preset is not None:
        return scaled_beta(PRESET_BETAS[hyperparameters.preset], f"preset {hyperparameters.preset}", base, report)
    mismatch = base.mismatch
    if mismatch is None:
        reason = "preset general, as the reference mismatch was not measured"
        return scaled_beta(PRESET_BETAS["general"], reason, base, report)
    preset = preset_for(mismatch.similarity, mismatch.features)
    measured = f"{mismatch.similarity:.2f} ({mismatch.features})"
    reason = f"the base's own samples and the chosen images have a similarity of {measured}: as far apart as {preset}"
    return scaled_beta(PRESET_BETAS[preset], reason, base, report)


def scaled_beta(beta: float, reason: str, base: BaseMeasurements, report: Report) -> float:
    """Scale ``beta`` to the size of this network's losses; report the result and the reason."""
    if base.prediction != "epsilon":
        losses = f"this base's {base.prediction} losses are {base.loss:.3g}"
        reason = f"{reason}, {beta:g} for losses of {EPSILON_LOSS:g}; {losses}"
        beta = beta * EPSILON_LOSS / base.loss
    report(BetaChosen(beta=beta, reason=reason))
    return beta
