"""The report's tables of domains and methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from demo.emoji import subject
from demo.emoji.domains import DOMAINS, NAMES, SUBJECT_RULE, Name, telling
from demo.emoji.scorers import LABELS, Scorers, load_scorers
from demo.win_rate import TIE
from research.data import POSES
from research.page.published import runs
from research.plan import Scope
from research.statistics.comparison import Comparison
from research.statistics.intervals import (
    Interval,
    base_domain_score,
    base_fidelity,
    base_success,
    domain_score,
    fidelity,
    interval,
    success,
    wins,
)
from research.trial import TITLES, Result, Results
from research.trials.mismatch import Measured


def spread(value: Interval | Measured, digits: int = 2) -> str:
    middle = value.mean if isinstance(value, Interval) else value.similarity
    return f"{middle:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def domain_table(measured: dict[Name, Measured]) -> Iterator[str]:
    yield "| domain | chosen over rejected | pairs: train / validation / test | similarity to the base's own (95%) |"
    yield "|---|---|---|---|"
    for name in sorted(NAMES, key=lambda one: -measured[one].similarity if one in measured else 0):
        if name == "personalization":
            counts, rule = [len(POSES[split]) for split in ("train", "validation", "test")], SUBJECT_RULE
        else:
            domain = DOMAINS[name]
            counts, rule = [len(telling(domain, split)) for split in ("train", "validation", "test")], domain.rule
        similarity = spread(measured[name]) if name in measured else "not measured"
        yield f"| {name} | {rule} | {' / '.join(map(str, counts))} | {similarity} |"


def matrix(scope: Scope, results: Results, compared: Mapping[Name, Comparison]) -> Iterator[str]:
    """Every domain by every method: mean success, the base's first."""
    ordered = sorted(compared, key=lambda name: -compared[name].similarity)
    yield f"| success | base | {' | '.join(TITLES[method] for method in scope.methods)} |"
    yield f"|---|---|{'---|' * len(scope.methods)}"
    for name in ordered:
        base = float(base_success(runs(name, scope.methods_in(name)[0], scope, results)).mean())
        cells = [
            spread(interval(success(runs(name, method, scope, results)))) if method in scope.methods_in(name) else ""
            for method in scope.methods
        ]
        yield f"| {name} (mismatch {1 - compared[name].similarity:.2f}) | {base:.2f} | {' | '.join(cells)} |"


def tables(scope: Scope, results: Results) -> Iterator[str]:
    yield (
        "Means over training seeds and test prompts, with 95% intervals. **Success** is the domain score of a sample where it "
        "also shows what its prompt names, and zero where it does not. For the new subject fidelity is that of other prompts, "
        "which have to go on working, and success is the domain score, over the prompts that it was not learnt with. "
        "*Real drawings* are the chosen images of the test pairs: what the judge gives them is as far as a score can be "
        f"trusted to rise. **Win rate**: the share of samples whose success is above the base's of the same noise; less than "
        f"{TIE:g} apart is a tie, which counts one half."
    )
    scorers = load_scorers()
    for domain in NAMES:
        if domain not in scope.domains:
            continue
        yield ""
        yield f"### {domain}"
        yield ""
        yield from _table(domain, scope, results, scorers)


def _table(domain: Name, scope: Scope, results: Results, scorers: Scorers) -> Iterator[str]:
    done = {method: found for method in scope.methods_in(domain) if (found := runs(domain, method, scope, results))}
    if not done:
        yield "Not run yet."
        return
    base = next(iter(done.values()))
    means = [float(of(base).mean()) for of in (base_success, base_domain_score, base_fidelity)]
    yield "| method | success | domain score | fidelity | win rate over the base | implicit accuracy |"
    yield "|---|---|---|---|---|---|"
    yield f"| base | {' | '.join(f'{mean:.2f}' for mean in means)} | | {base[0].base_implicit_accuracy:.2f} |"
    yield f"| real drawings | | {_ceiling(domain, scorers):.2f} | | | |"
    for method, found in done.items():
        cells = [spread(interval(of(found))) for of in (success, domain_score, fidelity, wins)]
        yield f"| {TITLES[method]} | {' | '.join(cells)} | {_accuracy(found)} |"


def _ceiling(domain: Name, scorers: Scorers) -> float:
    """The domain score of the test pairs' chosen images."""
    if domain == "personalization":
        wanted, images = "subject", [subject.draw(pose) for pose in POSES["test"]]
    else:
        one = DOMAINS[domain]
        wanted, images = one.wanted, [one.chosen(emoji) for emoji in telling(one, "test")]
    return float(scorers.renditions(images)[:, LABELS.index(wanted)].mean())


def _accuracy(found: Sequence[Result]) -> str:
    """The trainer's, with the mean of the runs' own intervals over pairs."""
    mean, low, high = np.mean([one.implicit_accuracy for one in found], axis=0)
    return spread(Interval(mean, low, high))
