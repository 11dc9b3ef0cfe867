"""What the figures support, in sentences: each is chosen by an interval, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demo.benchmark.cost import Cost
from demo.benchmark.domains import Name
from demo.benchmark.intervals import Floats, Interval, base_success, interval, resampled, success
from demo.benchmark.plan import Scope, final
from demo.benchmark.trial import TITLES, MethodName, Result, Results

PAPER_TIME = 0.855
AGAINST_DPO: tuple[MethodName, ...] = ("mapo", "mapo-code", "sft")
FLOOR = 0.3  # mean success that no method reaches where none has learnt what the domain asks for
LEARNT = 0.05  # mean success above the base's that shows that a method has learnt something


@dataclass(frozen=True)
class Comparison:
    """Paired differences of success in one domain; ``subject`` has those to the two methods made for a new subject.

    ``over_base`` are those of every method to the base; ``resampled_over_dpo`` those of MaPO's forms and of SFT to
    Diffusion-DPO, drawn again and again as for an interval.
    """

    similarity: float
    means: dict[MethodName, float]
    over_dpo: Interval
    over_sft: Interval
    code_over_dpo: Interval
    sft_over_dpo: Interval
    subject: dict[MethodName, Interval]
    over_base: dict[MethodName, Interval]
    resampled_over_dpo: dict[MethodName, Floats]


def compare(domain: Name, similarity: float, scope: Scope, results: Results) -> Comparison:
    """Raises KeyError unless the domain's published trials are all finished."""
    found: dict[MethodName, list[Result]] = {}
    for method in scope.methods_in(domain):
        done = [results.get(trial) for trial in final(domain, method, scope, results)]
        found[method] = [result for result in done if result is not None]

    def difference(one: MethodName, other: MethodName) -> Floats:
        return success(found[one]) - success(found[other])

    return Comparison(
        similarity=similarity,
        means={method: float(success(done).mean()) for method, done in found.items()},
        over_dpo=interval(difference("mapo", "dpo")),
        over_sft=interval(difference("mapo", "sft")),
        code_over_dpo=interval(difference("mapo-code", "dpo")),
        sft_over_dpo=interval(difference("sft", "dpo")),
        subject={method: interval(difference("mapo", method)) for method in ("dreambooth", "dco") if method in found},
        over_base={method: interval(success(done) - base_success(done)) for method, done in found.items()},
        resampled_over_dpo={one: resampled(difference(one, "dpo")) for one in AGAINST_DPO},
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
        verdict = "a larger" if ratio < PAPER_TIME else "a smaller"
        yield (
            f"**Cost.** A step of MaPO takes {ratio:.2f} of Diffusion-DPO's time, {verdict} saving than the paper's "
            f"{PAPER_TIME}, and {costs['mapo'].memory_ratio:.2f} of its memory. With adapters DPO holds no second model."
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
            continue
        failed = [TITLES[method] for method, gain in one.over_base.items() if gain.mean < LEARNT]
        if 0 < len(failed) < len(one.over_base):
            yield (
                f"**At the base's level in {name}**: {', '.join(failed)}. A difference to one of them is the other method's "
                "own gain."
            )
        elif failed:
            yield (
                f"**Nothing to gain in {name}**: the base's own success is within {LEARNT:g} of the best method's, so that "
                "no difference there can be large."
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
    grown = {method: _correlation(compared, method) for method in AGAINST_DPO}
    paper = grown["mapo"]
    verdict = (
        "supports"
        if paper.low > 0
        else "does not contradict, and does not settle,"
        if paper.mean > 0
        else "contradicts"
    )
    yield (
        f"**Does the advantage over Diffusion-DPO grow with mismatch?** Rank correlation over {len(compared)} domains, with "
        f"95% intervals over seeds and prompts: MaPO (paper form) {_told(paper)}, MaPO (reference code) "
        f"{_told(grown['mapo-code'])}. This {verdict} the claim: it rests on few domains."
    )
    sft = ", ".join(f"{name} {one.sft_over_dpo.mean:+.2f}" for name, one in compared.items())
    yield (
        f"**Is it the margin?** SFT, which never looks at a rejected image, differs from Diffusion-DPO by {sft}; rank "
        f"correlation {_told(grown['sft'])}. Where this is like MaPO's advantage, training on the chosen images explains it, "
        "not the margin."
    )


def _told(correlation: Interval) -> str:
    return f"{correlation.mean:+.2f} ({correlation.low:+.2f} to {correlation.high:+.2f})"


def _correlation(compared: Mapping[Name, Comparison], method: MethodName) -> Interval:
    """Spearman's, of the mismatch and a method's advantage over Diffusion-DPO."""
    mismatches = np.array([1 - one.similarity for one in compared.values()])
    draws = np.stack([one.resampled_over_dpo[method] for one in compared.values()], axis=1)
    means = np.array([one.means[method] - one.means["dpo"] for one in compared.values()])
    drawn = [_rank_correlation(mismatches, advantages) for advantages in draws]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(_rank_correlation(mismatches, means), float(low), float(high))


def _rank_correlation(one: Floats, other: Floats) -> float:
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])
