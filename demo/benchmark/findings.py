"""What the figures support, in sentences: each is chosen by an interval, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demo.benchmark.cost import Cost
from demo.benchmark.domains import Name
from demo.benchmark.intervals import Interval, interval, success
from demo.benchmark.plan import Scope, final
from demo.benchmark.trial import TITLES, MethodName, Result, Results

PAPER_TIME = 0.855
FLOOR = 0.3  # mean success that no method reaches where none has learnt what the domain asks for


@dataclass(frozen=True)
class Comparison:
    """Paired differences of success in one domain; ``subject`` has those to the two methods made for a new subject."""

    similarity: float
    means: dict[MethodName, float]
    over_dpo: Interval
    over_sft: Interval
    code_over_dpo: Interval
    subject: dict[MethodName, Interval]


def compare(domain: Name, similarity: float, scope: Scope, results: Results) -> Comparison:
    """Raises KeyError unless the domain's published trials are all finished."""
    found: dict[MethodName, list[Result]] = {}
    for method in scope.methods_in(domain):
        done = [results.get(trial) for trial in final(domain, method, scope, results)]
        found[method] = [result for result in done if result is not None]

    def difference(one: MethodName, other: MethodName) -> Interval:
        return interval(success(found[one]) - success(found[other]))

    return Comparison(
        similarity=similarity,
        means={method: float(success(done).mean()) for method, done in found.items()},
        over_dpo=difference("mapo", "dpo"),
        over_sft=difference("mapo", "sft"),
        code_over_dpo=difference("mapo-code", "dpo"),
        subject={method: difference("mapo", method) for method in ("dreambooth", "dco") if method in found},
    )


def findings(
    compared: Mapping[Name, Comparison], costs: Mapping[MethodName, Cost], unfinished: Sequence[Name] = ()
) -> Iterator[str]:
    if unfinished:
        yield f"**Not finished yet**: {', '.join(unfinished)}. What follows is of the other domains alone."
    if not compared:
        return
    yield from _best(compared)
    yield from _unlearnt(compared)
    yield _against("Diffusion-DPO", {name: one.over_dpo for name, one in compared.items()})
    yield from _growth(compared)
    yield _against("SFT", {name: one.over_sft for name, one in compared.items()})
    for name, one in compared.items():
        for method, value in one.subject.items():
            yield _against(TITLES[method], {name: value})
    if "mapo" in costs:
        ratio = costs["mapo"].time_ratio
        verdict = "more than" if ratio < PAPER_TIME else "less than"
        yield (
            f"**Cost.** A step of MaPO takes {ratio:.2f} of Diffusion-DPO's time, {verdict} the saving that the paper reports "
            f"(to {PAPER_TIME}), and {costs['mapo'].memory_ratio:.2f} of its memory. With adapters DPO holds no second model."
        )


def _best(compared: Mapping[Name, Comparison]) -> Iterator[str]:
    leaders = {name: max(one.means, key=lambda method: one.means[method]) for name, one in compared.items()}
    listed = ", ".join(
        f"{name}: {TITLES[leader]} ({compared[name].means[leader]:.2f})" for name, leader in leaders.items()
    )
    yield f"**Highest mean success**, whatever the intervals: {listed}."


def _unlearnt(compared: Mapping[Name, Comparison]) -> Iterator[str]:
    for name, one in compared.items():
        best = max(one.means.values())
        if best < FLOOR:
            yield (
                f"**No method has learnt {name}** within these steps: the best mean success is {best:.2f}. What tells the "
                "methods apart there is how they fail, so its rows and its point in the plot say little about the paper's "
                "claim."
            )


def _against(other: str, differences: Mapping[Name, Interval]) -> str:
    ahead = [f"{name} (+{one.mean:.2f})" for name, one in differences.items() if one.low > 0]
    behind = [f"{name} ({one.mean:.2f})" for name, one in differences.items() if one.high < 0]
    open_ = [f"{name} ({one.mean:+.2f})" for name, one in differences.items() if not one.excludes_zero]
    parts = [
        f"ahead in {', '.join(ahead)}" if ahead else "",
        f"behind in {', '.join(behind)}" if behind else "",
        f"not told apart in {', '.join(open_)}" if open_ else "",
    ]
    return f"**MaPO (paper form) against {other}**, by success: {'; '.join(part for part in parts if part)}."


def _growth(compared: Mapping[Name, Comparison]) -> Iterator[str]:
    """Whether the advantage over DPO rises with the mismatch: rank correlation over the domains, which are few."""
    if len(compared) < 3:
        yield f"**Growth with mismatch** cannot be told from {len(compared)} finished domains."
        return
    mismatches = [1 - one.similarity for one in compared.values()]
    advantages = [one.over_dpo.mean for one in compared.values()]
    correlation = float(np.corrcoef(_ranks(mismatches), _ranks(advantages))[0, 1])
    farthest = max(compared.values(), key=lambda one: 1 - one.similarity)
    nearest = min(compared.values(), key=lambda one: 1 - one.similarity)
    apart = farthest.over_dpo.low > nearest.over_dpo.high
    strong = correlation >= 0.9
    verdict = "supports" if apart and strong else "is in line with" if correlation > 0.5 else "does not support"
    yield (
        f"**Does the advantage over Diffusion-DPO grow with mismatch?** Rank correlation {correlation:+.2f} over "
        f"{len(compared)} domains; from {nearest.over_dpo.mean:+.2f} where the mismatch is least to "
        f"{farthest.over_dpo.mean:+.2f} where it is most. This {verdict} the claim; with so few domains no correlation is "
        "significant by itself."
    )


def _ranks(values: list[float]) -> list[int]:
    return [int(rank) for rank in np.argsort(np.argsort(values))]
