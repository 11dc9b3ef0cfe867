"""The report's findings in sentences: an interval decides each, never a hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from demo.emoji.domains import Name
from research.statistics.claims import PAPER_TIME, signed
from research.statistics.comparison import LEARNT, Comparison
from research.statistics.growth import FEWEST, growth
from research.statistics.intervals import Interval
from research.trial import TITLES, MethodName
from research.trials.cost import Cost

FLOOR = 0.3  # mean success that no method reaches where none has learnt what the domain asks for


def findings(
    compared: Mapping[Name, Comparison], costs: Mapping[MethodName, Cost], unfinished: Sequence[Name] = ()
) -> Iterator[str]:
    if unfinished:
        yield f"**Not finished yet**: {', '.join(unfinished)}. What follows is of the other domains alone."
    if not compared:
        return
    yield from _best(compared)
    yield from _unlearnt(compared)
    yield against("MaPO (paper form)", "Diffusion-DPO", {name: one.over_dpo for name, one in compared.items()})
    yield from _growth(compared)
    yield from _margin(compared)
    yield against("MaPO (paper form)", "SFT", {name: one.over_sft for name, one in compared.items()})
    for name, one in compared.items():
        for method, value in one.subject.items():
            yield against("MaPO (paper form)", TITLES[method], {name: value})
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
        if one.nothing_to_gain:
            yield (
                f"**Nothing to gain in {name}**: the base's own success is within {LEARNT:g} of the best method's, so that "
                "no difference there can be large."
            )
        elif failed:
            yield (
                f"**At the base's level in {name}**: {', '.join(failed)}. A difference to one of them is the other method's "
                "own gain."
            )


def against(one: str, other: str, differences: Mapping[Name, Interval]) -> str:
    """Where ``one`` is ahead of the other, behind it, or neither."""
    ahead = [f"{name} (+{value.mean:.2f})" for name, value in differences.items() if value.low > 0]
    behind = [f"{name} ({value.mean:.2f})" for name, value in differences.items() if value.high < 0]
    open_ = [f"{name} ({value.mean:+.2f})" for name, value in differences.items() if not value.excludes_zero]
    parts = [
        f"ahead in {', '.join(ahead)}" if ahead else "",
        f"behind in {', '.join(behind)}" if behind else "",
        f"not told apart in {', '.join(open_)}" if open_ else "",
    ]
    return f"**{one} against {other}**, by success: {'; '.join(part for part in parts if part)}."


def _growth(compared: Mapping[Name, Comparison]) -> Iterator[str]:
    """Whether the advantage over DPO rises with the mismatch, and what is left of it without one of the domains."""
    if len(compared) < FEWEST:
        yield f"**Growth with mismatch** cannot be told from {len(compared)} finished domains."
        return
    paper, code = growth(compared, "mapo"), growth(compared, "mapo-code")
    verdict = (
        "supports" if paper.holds else "contradicts" if paper.reversed else "does not contradict, and does not support,"
    )
    rests = (
        f" It rests on {paper.weakest}: without that domain it is {paper.without[paper.weakest]:+.2f} and "
        f"{code.without[paper.weakest]:+.2f}."
        if paper.without
        else ""
    )
    yield (
        f"**Does the advantage over Diffusion-DPO grow with mismatch?** Rank correlation over {len(compared)} domains, with "
        f"95% intervals over seeds and prompts: MaPO (paper form) {signed(paper.over_all)}, MaPO (reference code) "
        f"{signed(code.over_all)}.{rests} This {verdict} the claim."
    )


def _margin(compared: Mapping[Name, Comparison]) -> Iterator[str]:
    """Whether what MaPO gains over DPO is more than what imitating the chosen images gains."""
    listed = ", ".join(f"{name} {one.sft_over_dpo.mean:+.2f}" for name, one in compared.items())
    own = {name: one.over_sft for name, one in compared.items() if one.over_sft.low > 0 and one.over_sft.mean >= LEARNT}
    alike = (
        f"MaPO is ahead of it by {LEARNT:g} or more in no domain: what MaPO gains over Diffusion-DPO here, training on "
        "the chosen images explains, not the margin"
        if not own
        else f"MaPO is ahead of it in {', '.join(f'{name} ({one.mean:+.2f})' for name, one in own.items())}: there the "
        "margin adds to training on the chosen images"
    )
    grown = f", rank correlation {signed(growth(compared, 'sft').over_all)}" if len(compared) >= FEWEST else ""
    title = "SFT has the same advantage." if not own else "Is it the margin?"
    yield (
        f"**{title}** SFT, which never looks at a rejected image, differs from Diffusion-DPO by {listed}{grown}. {alike}."
    )
