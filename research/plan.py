"""The benchmark's plan: which trials it consists of. Later trials depend on earlier results, so it is recomputed.

For every domain and method five trials choose learning rate and beta on the validation emoji: three learning rates at
the usual beta, then two other betas at the best of them or, for methods without one, two nearer learning rates. If the
best of the five lies at or beyond the end of the rates, a sixth goes on in that direction. Whichever leads is run with
a second seed, until the one with the highest mean has both: a lucky first run does not win. What is chosen is then
trained with three further seeds and scored on the test emoji.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from demo.emoji.domains import NAMES, Name
from research.trial import METHODS, MethodName, Result, Results, Trial
from trainer.spec.methods import PRESET_BETAS

LEARNING_RATES = (5e-4, 1.5e-3, 4.5e-3)
NEARER = 3**0.5  # between two of them
BEYOND = 3.0  # past the end of them
BETA_FACTOR = 8.0
SEARCH_SEED, CONFIRMING_SEED = 0, 10
SEEDS = (1, 2, 3)
USUAL_BETAS: dict[MethodName, float] = {"dpo": 2000.0, "mapo-code": 0.1, "dco": 1000.0}
EVERYWHERE: tuple[MethodName, ...] = ("sft", "dpo", "mapo", "mapo-code")
SWEPT_DOMAIN: Name = "style"  # where the number of pairs and beta are varied
SIZED: tuple[MethodName, ...] = ("sft", "dpo", "mapo")
SIZES = (12, 47)  # training pairs, beside all of them
BETAS = (1.0, 8.0, 64.0, 512.0, 4096.0)


@dataclass(frozen=True)
class Scope:
    """What is run; ``make bench-claims QUICK=1`` narrows it and takes the hyperparameters as they were chosen."""

    domains: tuple[Name, ...]
    methods: tuple[MethodName, ...]
    seeds: tuple[int, ...] = SEEDS
    sweeps: bool = True
    chosen_by: Results | None = None  # results of another run, whose choice is taken over

    def methods_in(self, domain: Name) -> tuple[MethodName, ...]:
        return tuple(
            method
            for method in METHODS
            if method in self.methods and (method in EVERYWHERE or domain == "personalization")
        )


WHOLE = Scope(tuple(sorted(NAMES, key=lambda name: (name != SWEPT_DOMAIN, -NAMES.index(name)))), METHODS)


def wanted(scope: Scope, results: Results) -> Iterator[Trial]:
    """All trials that are known to be needed by now, finished ones too, in the order in which to run them."""
    for domain in scope.domains:
        for method in scope.methods_in(domain):
            if scope.chosen_by is None:
                yield from search(domain, method, results)
        for method in scope.methods_in(domain):
            yield from final(domain, method, scope, results)
    if scope.sweeps:
        for method in SIZED:
            yield from sizes(method, scope, results)
        yield from betas(scope, results)


def search(domain: Name, method: MethodName, results: Results) -> Iterator[Trial]:
    """The five or six trials and the confirming ones, as far as they are known by now."""
    beta = usual_beta(domain, method)
    first = [Trial(domain, method, rate, beta, SEARCH_SEED, "validation") for rate in LEARNING_RATES]
    yield from first
    best = best_of(first, results)
    if best is None:
        return
    five = [*first, *neighbours(best)]
    yield from five[len(first) :]
    best = best_of(five, results)
    if best is None:
        return
    further = beyond(best)
    yield from further
    if best_of([*five, *further], results) is not None:
        yield from confirmations([*five, *further], results)


def neighbours(best: Trial) -> list[Trial]:
    if best.beta is None:
        return [replace(best, learning_rate=best.learning_rate * factor) for factor in (1 / NEARER, NEARER)]
    return [replace(best, beta=best.beta * factor) for factor in (1 / BETA_FACTOR, BETA_FACTOR)]


def beyond(best: Trial) -> list[Trial]:
    """One trial more, in the direction in which nothing was tried; none where the best rate lies between others."""
    if best.learning_rate <= LEARNING_RATES[0]:
        return [replace(best, learning_rate=best.learning_rate / BEYOND)]
    if best.learning_rate >= LEARNING_RATES[-1]:
        return [replace(best, learning_rate=best.learning_rate * BEYOND)]
    return []


def confirmations(searched: list[Trial], results: Results) -> Iterator[Trial]:
    """The second runs of those that led, in the order in which they came to lead."""
    means = {trial: [found] for trial in searched if (found := results.get(trial)) is not None}
    while True:
        leader = max(means, key=lambda trial: rank(means[trial]))
        if len(means[leader]) == 2:
            return
        second = replace(leader, seed=CONFIRMING_SEED)
        yield second
        found = results.get(second)
        if found is None:
            return
        means[leader].append(found)


def usual_beta(domain: Name, method: MethodName) -> float | None:
    return PRESET_BETAS[domain] if method == "mapo" else USUAL_BETAS.get(method)


def best_of(trials: list[Trial], results: Results) -> Trial | None:
    """The one with the highest success, of equals the one with the lowest chosen loss; None while one is missing."""
    finished = [result for trial in trials if (result := results.get(trial)) is not None]
    if len(finished) < len(trials):
        return None
    return max(finished, key=lambda result: rank([result])).trial


def rank(runs: list[Result]) -> tuple[float, float]:
    return sum(map(quality, runs)) / len(runs), -runs[0].chosen_loss


def quality(result: Result) -> float:
    """What hyperparameters are chosen by: mean success, for a new subject times the share of other prompts that
    still show what they name."""
    success = mean(result.success)
    return success * mean(result.fidelity) if result.trial.domain == "personalization" else success


def mean(rows: list[list[float]]) -> float:
    values = [value for row in rows for value in row]
    return sum(values) / len(values)


def chosen(domain: Name, method: MethodName, scope: Scope, results: Results) -> Trial | None:
    """The best of those searched, or None while the search is not finished."""
    found = scope.chosen_by or results
    runs: dict[Trial, list[Result]] = {}
    for trial in search(domain, method, found):
        result = found.get(trial)
        if result is None:
            return None
        runs.setdefault(replace(trial, seed=SEARCH_SEED), []).append(result)
    return max(runs, key=lambda trial: rank(runs[trial]))


def final(domain: Name, method: MethodName, scope: Scope, results: Results) -> Iterator[Trial]:
    best = chosen(domain, method, scope, results)
    if best is not None:
        yield from (replace(best, seed=seed, split="test") for seed in scope.seeds)


def sizes(method: MethodName, scope: Scope, results: Results) -> Iterator[Trial]:
    """Fewer training pairs, everything else as with all of them."""
    for pairs in SIZES:
        yield from (replace(trial, pairs=pairs) for trial in final(SWEPT_DOMAIN, method, scope, results))


def betas(scope: Scope, results: Results) -> Iterator[Trial]:
    """MaPO's beta at the learning rate that was chosen."""
    for trial in final(SWEPT_DOMAIN, "mapo", scope, results):
        yield from (replace(trial, beta=beta) for beta in BETAS)


def settings(domain: Name, method: MethodName, results: Results) -> list[Trial]:
    """What the search tried, confirming runs with a second seed left out."""
    return [trial for trial in search(domain, method, results) if trial.seed == SEARCH_SEED]


def live_settings(domain: Name, method: MethodName, scope: Scope, results: Results, gain: float) -> int:
    """How many of the settings brought the mean success on validation above the base's by ``gain`` or more."""
    found = scope.chosen_by or results
    done = [result for trial in settings(domain, method, found) if (result := found.get(trial)) is not None]
    return sum(mean(one.success) - mean(one.base_success) >= gain for one in done)
