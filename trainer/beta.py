"""How strongly a run pushes, where the user leaves it to pairtune.

The paper's betas were found for SDXL's noise prediction. In every objective beta multiplies a difference of losses, so
for a network that predicts something else, whose losses are of another size, "auto" divides it by how much larger
they are: the base's loss on the held-out chosen images, against EPSILON_LOSS. Nobody has published betas for such
networks; this is a rule of ours, and what it gave is told in an event.
"""

from __future__ import annotations

from trainer.drawing.mismatch import preset_for
from trainer.prepare import Ready
from trainer.rundir import Run
from trainer.spec.events import BetaChosen
from trainer.spec.methods import PRESET_BETAS, MapoHyperparameters, MapoMethod
from trainer.spec.run import FamilyName
from trainer.validation import HeldOutLosses

EPSILON_LOSS = 0.1  # what we take as usual for SDXL's noise prediction, averaged over timesteps

# Of Diffusion-DPO's authors (arXiv 2311.12908), who trained SD 1.5 and SDXL; the others are taken like the nearer one.
DPO_BETAS: dict[FamilyName, float] = {"sd1": 2000.0, "sd2": 2000.0, "sdxl": 5000.0, "sd3": 5000.0}
DCO_BETA = 1000.0  # arXiv 2402.12004, SDXL


def mapo_beta(ready: Ready, base: HeldOutLosses) -> float:
    """As given, else the preset's or by the measured reference mismatch."""
    asked = asked_of(ready.run)
    if asked.beta != "auto":
        return asked.beta
    if ready.resumed and ready.resumed.settled.beta is not None:
        return ready.resumed.settled.beta
    if asked.form == "reference-code":
        return 0.1  # that code's weight of the margin term, which is no factor of losses
    if asked.preset is not None:
        return scaled(ready, base, PRESET_BETAS[asked.preset], f"preset {asked.preset}")
    if ready.mismatch is None:
        return scaled(
            ready, base, PRESET_BETAS["general"], "preset general, as the reference mismatch was not measured"
        )
    preset = preset_for(ready.mismatch.similarity, ready.mismatch.features)
    measured = f"{ready.mismatch.similarity:.2f} ({ready.mismatch.features})"
    reason = f"the base's own samples and the chosen images have a similarity of {measured}: as far apart as {preset}"
    return scaled(ready, base, PRESET_BETAS[preset], reason)


def dpo_beta(ready: Ready, base: HeldOutLosses) -> float:
    family = ready.run.spec.base.family
    return given_or(ready, base, DPO_BETAS[family], f"Diffusion-DPO's for {family}")


def dco_beta(ready: Ready, base: HeldOutLosses) -> float:
    return given_or(ready, base, DCO_BETA, "DCO's for SDXL")


def given_or(ready: Ready, base: HeldOutLosses, usual: float, reason: str) -> float:
    asked = ready.run.hyperparameters.beta
    if isinstance(asked, float):
        return asked
    if ready.resumed and ready.resumed.settled.beta is not None:
        return ready.resumed.settled.beta
    return scaled(ready, base, usual, reason)


def scaled(ready: Ready, base: HeldOutLosses, beta: float, reason: str) -> float:
    """For the size of this network's losses; reports what was chosen and why."""
    prediction = ready.learner.denoiser.prediction
    if prediction != "epsilon":
        size = base.chosen.mean().item()
        reason = f"{reason}, {beta:g} for losses of {EPSILON_LOSS:g}; this base's {prediction} losses are {size:.3g}"
        beta = beta * EPSILON_LOSS / size
    ready.phases.report(BetaChosen(beta=beta, reason=reason))
    return beta


def asked_of(run: Run) -> MapoHyperparameters:
    method = run.spec.method
    if not isinstance(method, MapoMethod):
        raise TypeError(f"not a MaPO run: {method.type}")
    return method.hyperparameters
