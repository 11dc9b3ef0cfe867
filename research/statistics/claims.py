"""The paper's claims one by one, with our result of each; an interval decides every verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from demo.emoji.domains import Name
from research.statistics.comparison import Comparison
from research.statistics.growth import FEWEST, growth
from research.statistics.intervals import Interval
from research.trial import TITLES, MethodName
from research.trials.cost import Cost

Verdict = Literal["reproduced", "not reproduced", "not reproduced: the opposite", "not testable here"]

PAPER_TIME, PAPER_MEMORY = 0.855, 0.825  # of Diffusion-DPO's, the paper's table 3
FAR: tuple[Name, ...] = ("culture", "safety", "style")  # the paper's specialised domains


@dataclass(frozen=True)
class Claim:
    says: str
    here: str
    verdict: Verdict


def claims(compared: Mapping[Name, Comparison], costs: Mapping[MethodName, Cost]) -> Iterator[Claim]:
    if all(name in compared for name in FAR):
        far = {name: compared[name] for name in FAR}
        yield _ahead_of_dpo(far)
        yield _largest_in_style(far)
        yield _ahead_of_sft({name: far[name] for name in ("culture", "safety")})
        yield _dpo_ahead_of_sft(far["culture"])
    if len(compared) > FEWEST:
        yield _grows(compared)
    if "personalization" in compared:
        for method in compared["personalization"].subject:
            yield _subject(method, compared["personalization"])
    yield Claim(
        "MaPO's advantage over DreamBooth grows with the mismatch",
        "DreamBooth teaches a new subject; it ran in that domain alone",
        "not testable here",
    )
    if "general" in compared and compared["general"].nothing_to_gain:
        yield Claim(
            "On general preference MaPO is as good as Diffusion-DPO or better, and better looking",
            "the base is as good as every method there, and the judges know no beauty",
            "not testable here",
        )
    yield Claim(
        "MaPO's best beta grows with the mismatch",
        "the search began at the paper's beta of each domain and took one step of eight either way",
        "not testable here",
    )
    if "mapo" in costs:
        yield from _cost(costs["mapo"])


def _ahead_of_dpo(far: Mapping[Name, Comparison]) -> Claim:
    return Claim(
        "MaPO is ahead of Diffusion-DPO in culture, safety and style",
        _differences_text({name: one.over_dpo for name, one in far.items()}) + _unlearnt(far),
        _verdict([one.over_dpo for one in far.values() if one.live["dpo"]]),
    )


def _largest_in_style(far: Mapping[Name, Comparison]) -> Claim:
    others: tuple[Name, ...] = ("culture", "safety")
    gaps = {name: _of(far["style"], far[name]) for name in others}
    tested = [gap for name, gap in gaps.items() if far[name].live["dpo"]] if far["style"].live["dpo"] else []
    return Claim(
        "Of these three the gap to Diffusion-DPO is largest in style",
        f"gap in style less that in {_differences_text(gaps)}{_unlearnt(far)}",
        _verdict(tested),
    )


def _unlearnt(compared: Mapping[Name, Comparison]) -> str:
    """Where no setting of Diffusion-DPO learnt anything: there a difference to it is the other method's own gain."""
    dead = [name for name, one in compared.items() if not one.live["dpo"] and not one.nothing_to_gain]
    return f"; in {' and '.join(dead)} no setting of Diffusion-DPO learnt anything" if dead else ""


def _of(one: Comparison, other: Comparison) -> Interval:
    """The difference of two domains' advantages; their seeds are drawn alike, their prompts apart."""
    draws = one.resampled_over_dpo["mapo"] - other.resampled_over_dpo["mapo"]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(one.over_dpo.mean - other.over_dpo.mean, float(low), float(high))


def _ahead_of_sft(domains: Mapping[Name, Comparison]) -> Claim:
    over = {name: one.over_sft for name, one in domains.items()}
    return Claim(
        f"MaPO is ahead of SFT in {' and '.join(domains)}", _differences_text(over), _verdict(list(over.values()))
    )


def _dpo_ahead_of_sft(culture: Comparison) -> Claim:
    lead = culture.sft_over_dpo
    turned = Interval(-lead.mean, -lead.high, -lead.low)
    tested = [turned] if culture.live["dpo"] else []
    return Claim(
        "In culture Diffusion-DPO is ahead of SFT",
        signed(turned) + _unlearnt({"culture": culture}),
        _verdict(tested),
    )


def _grows(compared: Mapping[Name, Comparison]) -> Claim:
    found = growth(compared, "mapo")
    without = f"without {found.weakest} {found.without[found.weakest]:+.2f}"
    verdict: Verdict = (
        "reproduced" if found.holds else "not reproduced: the opposite" if found.reversed else "not reproduced"
    )
    return Claim(
        "MaPO's advantage over Diffusion-DPO grows with the mismatch",
        f"rank correlation {signed(found.over_all)} over {len(compared)} domains, {without}{_unlearnt(compared)}",
        verdict,
    )


def _subject(method: MethodName, subject: Comparison) -> Claim:
    says = f"MaPO is ahead of {TITLES[method]} for a new subject"
    if not subject.live[method]:
        result_text = f"{signed(subject.subject[method])}; no setting of {TITLES[method]} learnt anything"
        return Claim(says, result_text, "not testable here")
    return Claim(says, signed(subject.subject[method]), _verdict([subject.subject[method]]))


def _cost(mapo: Cost) -> Iterator[Claim]:
    time = Interval(mapo.time_ratio, mapo.time_ratio_low, mapo.time_ratio_high)
    yield Claim(
        f"A step takes less time than Diffusion-DPO's ({PAPER_TIME} of it)",
        f"{time.mean:.2f} of it (quartiles {time.low:.2f} to {time.high:.2f})",
        "reproduced" if time.high < 1 else "not reproduced",
    )
    yield Claim(
        f"It needs less memory than Diffusion-DPO ({PAPER_MEMORY} of it), so that larger batches fit",
        f"{mapo.memory_ratio:.2f} of it; the paper's Diffusion-DPO holds a second model, which adapters make needless",
        "not testable here",
    )


def _verdict(differences: list[Interval]) -> Verdict:
    """Of a claim that all of these are above zero."""
    if differences and all(one.low > 0 for one in differences):
        return "reproduced"
    if differences and all(one.high < 0 for one in differences):
        return "not reproduced: the opposite"
    return "not reproduced" if differences else "not testable here"


def _differences_text(differences: Mapping[Name, Interval]) -> str:
    return ", ".join(f"{name} {signed(one)}" for name, one in differences.items())


def signed(value: Interval) -> str:
    return f"{value.mean:+.2f} ({value.low:+.2f} to {value.high:+.2f})"
