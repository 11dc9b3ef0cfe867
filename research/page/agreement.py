"""Compare two runs of the same trials: how far their results agree."""

from __future__ import annotations

from collections.abc import Iterable

from research.plan import mean
from research.trial import Results, Trial


def agreement(trials: Iterable[Trial], ours: Results, theirs: Results) -> str:
    """One sentence, of the trials that both have; a search that chose otherwise asks for other ones."""
    trials = list(trials)
    pairs = [(one, other) for trial in trials if (one := ours.get(trial)) and (other := theirs.get(trial))]
    if not pairs:
        return "No trial of these is among the kept results."
    apart = [abs(mean(one.success) - mean(other.success)) for one, other in pairs]
    same = sum(one.success == other.success for one, other in pairs)
    return (
        f"Of {len(trials)} trials {len(pairs)} are among the kept results: {same} gave every sample the same score; "
        f"mean success differs by {max(apart):.3f} at most, {sum(apart) / len(apart):.3f} on average."
    )
