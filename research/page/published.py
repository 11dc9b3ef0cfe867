"""Select the published results: those of domains and methods whose trials are all finished."""

from __future__ import annotations

from collections.abc import Sequence

from demo.emoji.domains import NAMES, Name
from research.plan import Scope, final
from research.trial import MethodName, Result, Results, Trial


def finished_domains(scope: Scope, results: Results) -> list[Name]:
    return [
        domain
        for domain in NAMES
        if domain in scope.domains and all(runs(domain, method, scope, results) for method in scope.methods_in(domain))
    ]


def runs(domain: Name, method: MethodName, scope: Scope, results: Results) -> list[Result]:
    """The published trials, all of them or none."""
    return complete(list(final(domain, method, scope, results)), results)


def complete(trials: Sequence[Trial], results: Results) -> list[Result]:
    found = [result for trial in trials if (result := results.get(trial)) is not None]
    return found if found and len(found) == len(trials) else []
