"""The report's section on reproducing the results: commands and time."""

from __future__ import annotations

from collections.abc import Iterator

from research.plan import WHOLE, wanted
from research.trial import Results

BESIDE_TRAINING = 1.6  # a trial's time over that of its training: the base's losses, drawing and judging come on top
WORKERS = 2


def again(results: Results) -> Iterator[str]:
    """``Result.seconds`` are of training alone, each by one of two workers, a core for each."""
    done = [found for trial in set(wanted(WHOLE, results)) if (found := results.get(trial)) is not None]
    hours = sum(one.seconds for one in done) / 3600
    yield (
        "- `make bench-claims QUICK=1` trains two methods in one domain, says which is ahead, and takes at most "
        "15 minutes on two cores."
    )
    yield (
        f"- `make bench-claims FRESH=1` runs all {len(done)} trials from nothing, the search too, in a place of its "
        "own (var/benchmark/fresh), and says how far they agree with the kept ones. Their training alone took "
        f"{hours:.1f} hours of one core, all of a trial about {BESIDE_TRAINING:g} times its training: "
        f"{hours * BESIDE_TRAINING / WORKERS:.0f} hours on two cores. The judges are the kept ones; "
        "`python -m research scorers` trains them anew."
    )
    yield ""
