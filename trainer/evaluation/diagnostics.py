"""Diagnose a run from metrics.jsonl: each diagnosis is a warning with advice, the same after a resume.

A change counts where its bootstrap interval says so, because nobody reads a warning that comes with every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Any

from trainer.spec.events import Warned

LoggedRow = Mapping[str, Any]  # of metrics.jsonl

FEW_PAIRS = 12  # their accuracy's interval is about half of the scale wide


@dataclass(frozen=True)
class MetricsHistory:
    """A run so far: ``evaluations`` of the base (step 0) and of checkpoints; ``windows`` are the steps between them."""

    evaluations: Sequence[LoggedRow]
    windows: Sequence[Sequence[LoggedRow]]
    max_steps: int

    @property
    def base(self) -> LoggedRow:
        return self.evaluations[0]

    @property
    def last(self) -> LoggedRow:
        return self.evaluations[-1]

    @property
    def trained(self) -> Sequence[LoggedRow]:
        """Evaluations of checkpoints."""
        return self.evaluations[1:]


def metrics_history(rows: Sequence[LoggedRow], max_steps: int) -> MetricsHistory:
    """From the rows of metrics.jsonl."""
    evaluations = [row for row in rows if row["kind"] == "validation" and not row["final"]]
    trainings = [row for row in rows if row["kind"] == "train"]
    windows = [
        [row for row in trainings if before["step"] < row["step"] <= after["step"]]
        for before, after in pairwise(evaluations)
    ]
    return MetricsHistory(evaluations, windows, max_steps)


def warnings(rows: Sequence[LoggedRow], max_steps: int) -> list[Warned]:
    """Warnings that the last evaluation gives reason for and that no row has yet."""
    reported = {row["code"] for row in rows if row["kind"] == "warning"}
    so_far = metrics_history(rows, max_steps)
    found = []
    for code, diagnose in DIAGNOSTICS.items():
        message = None if code in reported else diagnose(so_far)
        if message is not None:
            found.append(Warned(code=code, message=message))
    return found


def should_stop(rows: Sequence[LoggedRow], patience: int | None) -> bool:
    """Whether ``patience`` evaluations in a row were no better than the best before them."""
    objectives = [row["objective"] for row in metrics_history(rows, 0).trained]
    if patience is None or not objectives:
        return False
    return len(objectives) - 1 - objectives.index(min(objectives)) >= patience


def few_validation_pairs(run: MetricsHistory) -> str | None:
    pairs = run.base["pairs"]
    if pairs >= FEW_PAIRS:
        return None
    return (
        f"Only {pairs} held-out pairs: their numbers say little, and the best checkpoint is chosen by them. "
        f"Give a validation_file, or a larger validation.share, for at least {FEW_PAIRS}."
    )


def chosen_loss_rising(run: MetricsHistory) -> str | None:
    last = run.last
    if not run.trained or last["chosen_loss_change_low"] <= 0:
        return None
    return (
        f"At step {last['step']} the held-out chosen images are denoised worse than by the base: loss "
        f"{last['chosen_loss']:.4f} against {last['base_chosen_loss']:.4f}. "
        "The adapter moves away from what is wanted. Lower learning_rate, take a larger beta, or train fewer steps."
    )


def margin_from_rejected_only(run: MetricsHistory) -> str | None:
    last = run.last
    grew = bool(run.trained) and last["margin_change_low"] > 0
    if not grew or last["chosen_loss_change"] < -0.1 * last["margin_change"]:
        return None
    return (
        f"At step {last['step']} the margin grew by {last['margin_change']:.4f}, but the chosen loss changed by "
        f"{last['chosen_loss_change']:+.4f} only: rejected images are pushed away rather than chosen ones learned, "
        "which in time breaks images. Check samples; lower learning_rate or take a larger beta."
    )


def saturated(run: MetricsHistory) -> str | None:
    if len(run.trained) < 2:
        return None
    before, last = run.trained[-2:]
    sure = all(row["implicit_accuracy"] >= 0.98 for row in (before, last)) and last["base_implicit_accuracy"] < 0.9
    gained = before["objective"] - last["objective"]
    if not sure or gained > 0.01 * abs(run.base["objective"] - last["objective"]):
        return None
    return (
        f"At step {last['step']} nearly every held-out pair is in order ({last['implicit_accuracy']:.2f}) and the "
        "objective has stopped falling: further steps change the images, not the order. Use fewer steps, or "
        "validation.patience."
    )


def diverging(run: MetricsHistory) -> str | None:
    if len(run.windows) < 2 or not all(run.windows):
        return None
    losses = [mean(row["loss"] for row in window) for window in run.windows]
    norms = [median(row["grad_norm"] for row in window) for window in run.windows]
    worse = losses[-1] > 1.5 * min(losses) and losses[-1] > losses[0]
    if not worse or norms[-1] <= 3 * min(norms):
        return None
    return (
        f"Up to step {run.last['step']} the training loss rose to {losses[-1]:.4f} from {min(losses):.4f}, and the "
        f"gradient norm to {norms[-1]:.3g} from {min(norms):.3g}. Lower learning_rate, or lengthen warmup_steps."
    )


def overfitting(run: MetricsHistory) -> str | None:
    objectives = [row["objective"] for row in run.trained]
    if len(objectives) < 3 or not all(run.windows):
        return None
    best = objectives.index(min(objectives))
    rising = best <= len(objectives) - 3 and objectives[-1] > objectives[-2] > objectives[best]
    losses = [mean(row["loss"] for row in window) for window in run.windows]
    if not rising or losses[-1] >= losses[best]:
        return None
    return (
        f"Since step {run.trained[best]['step']} the held-out objective rises ({objectives[best]:.4f} to "
        f"{objectives[-1]:.4f}) while the training loss falls: the adapter learns its pairs by heart. The exported one "
        "is that of the best step; more pairs, a lower rank or fewer steps would help."
    )


def no_learning(run: MetricsHistory) -> str | None:
    last = run.last
    if not run.trained or last["step"] < run.max_steps / 2 or last["objective_change_high"] < 0:
        return None
    return (
        f"After {last['step']} of {run.max_steps} steps the held-out objective does not differ from the base's: change "
        f"{last['objective_change']:+.4f}, 95% interval {last['objective_change_low']:+.4f} to "
        f"{last['objective_change_high']:+.4f}. Raise learning_rate, train longer, or hold out more pairs."
    )


DIAGNOSTICS: Mapping[str, Callable[[MetricsHistory], str | None]] = {
    "few_validation_pairs": few_validation_pairs,
    "chosen_loss_rising": chosen_loss_rising,
    "margin_from_rejected_only": margin_from_rejected_only,
    "saturated": saturated,
    "diverging": diverging,
    "overfitting": overfitting,
    "no_learning": no_learning,
}
