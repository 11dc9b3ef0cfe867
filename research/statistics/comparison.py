"""Compare the methods of one domain by paired differences over the same seeds and held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass

from demo.emoji.domains import Name
from research.plan import Scope, final, live_settings
from research.statistics.intervals import Floats, Interval, base_success, interval, resampled, success
from research.trial import MethodName, Result, Results

AGAINST_DPO: tuple[MethodName, ...] = ("mapo", "mapo-code", "sft")
LEARNT = 0.05  # mean success above the base's that shows that a method has learnt something


@dataclass(frozen=True)
class Comparison:
    """Paired differences of success in one domain; ``subject`` has those to the two methods made for a new subject.

    ``over_base`` are those of every method to the base; ``resampled_over_dpo`` those of MaPO's forms and of SFT to
    Diffusion-DPO, drawn again and again as for an interval. ``live``: how many of the settings that the search tried
    learnt anything, by method.
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
    live: dict[MethodName, int]

    @property
    def nothing_to_gain(self) -> bool:
        """The base is as good as any method; there is no difference to be found."""
        return all(gain.mean < LEARNT for gain in self.over_base.values())


def compare(domain: Name, similarity: float, scope: Scope, results: Results, *, learnt_too: bool = False) -> Comparison:
    """Raises KeyError unless the domain's published trials are all finished."""
    found: dict[MethodName, list[Result]] = {}
    for method in scope.methods_in(domain):
        done = [results.get(trial) for trial in final(domain, method, scope, results)]
        found[method] = [result for result in done if result is not None]
    scores = {method: success(done, learnt_too=learnt_too) for method, done in found.items()}

    def difference(one: MethodName, other: MethodName) -> Floats:
        return scores[one] - scores[other]

    return Comparison(
        similarity=similarity,
        means={method: float(score.mean()) for method, score in scores.items()},
        over_dpo=interval(difference("mapo", "dpo")),
        over_sft=interval(difference("mapo", "sft")),
        code_over_dpo=interval(difference("mapo-code", "dpo")),
        sft_over_dpo=interval(difference("sft", "dpo")),
        subject={method: interval(difference("mapo", method)) for method in ("dreambooth", "dco") if method in found},
        over_base={method: interval(success(done) - base_success(done)) for method, done in found.items()},
        resampled_over_dpo={one: resampled(difference(one, "dpo")) for one in AGAINST_DPO},
        live={method: live_settings(domain, method, scope, results, LEARNT) for method in found},
    )
