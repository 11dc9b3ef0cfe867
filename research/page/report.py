"""docs/benchmark.md from the results: every figure, and every sentence that depends on one, is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from demo.emoji.domains import NAMES, Name
from demo.emoji.scorers import load_scorers
from research.data import STEPS
from research.page.again import again
from research.page.effects import advantage, beta_section, cost_section, size_section
from research.page.findings import against, findings
from research.page.how import how
from research.page.published import finished_domains, runs
from research.page.searched import search_section
from research.page.sheets import draw_sheets, sheet_section
from research.page.tables import domain_table, matrix, tables
from research.plan import WHOLE, Scope
from research.statistics.claims import claims, signed
from research.statistics.comparison import Comparison, compare
from research.statistics.intervals import base_success, interval, success
from research.trial import TITLES, Results
from research.trials import cost, mismatch


def write_report(results: Results, home: Path, to: Path, pictures: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    draw_sheets(results, home, pictures)
    to.write_text("\n".join(page(results, pictures)), encoding="utf-8")
    print(f"{to}: {len(finished_domains(WHOLE, results))} domains")


def write_quick(scope: Scope, results: Results, to: Path) -> None:
    """The narrow run's verdict and table, to the terminal and to a page of its own."""
    text = "\n".join(["# One domain, two methods", "", *verdicts(scope, results), "", *tables(scope, results)])
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nWritten to {to}. The whole benchmark: docs/benchmark.md.")


def verdicts(scope: Scope, results: Results) -> Iterator[str]:
    """In words: who is ahead in each domain, and by how much over the base."""
    for domain in scope.domains:
        done = {method: runs(domain, method, scope, results) for method in ("dpo", "mapo")}
        dpo, mapo = (success(done[method]) for method in ("dpo", "mapo"))
        yield against(TITLES["mapo"], TITLES["dpo"], {domain: interval(mapo - dpo)})
        yield (
            f"Of {mapo.shape[1]} test prompts that no pair was trained on, with {mapo.shape[0]} training seeds, the base draws "
            f"{base_success(done['mapo']).mean():.2f} as wanted, {TITLES['dpo']} {dpo.mean():.2f}, {TITLES['mapo']} "
            f"{mapo.mean():.2f}; the difference is {signed(interval(mapo - dpo))}."
        )


def page(results: Results, pictures: Path) -> Iterator[str]:
    """The page's lines; its plots are written to ``pictures`` on the way, where its sheets of samples lie already."""
    measured, costs = mismatch.read(results.folder), cost.read(results.folder)
    compared, learnt_too = (_compared(results, measured, learnt_too=also) for also in (False, True))
    yield "# The paper's claims on a small bench"
    yield ""
    yield (
        "MaPO's paper ([arXiv 2406.06424](https://arxiv.org/abs/2406.06424)) says that its advantage over Diffusion-DPO and "
        "DreamBooth grows with the reference mismatch, and that it needs less time and memory. This page shows what holds of "
        "that on `emoji-xl`, a Stable Diffusion XL whose UNet has 11 million parameters, in five domains made from OpenMoji. "
        "`make bench-claims` made it from the kept results in research/results: every figure, and every sentence that depends "
        "on one, is computed."
    )
    yield ""
    yield from again(results)
    yield "## The paper's claims"
    yield ""
    yield "| the paper says | here | |"
    yield "|---|---|---|"
    for claim in claims(compared, costs):
        yield f"| {claim.says} | {claim.here} | **{claim.verdict}** |"
    yield ""
    yield (
        "Differences are of success, with 95% intervals over seeds and prompts. *Reproduced* needs intervals above zero in every "
        "domain named where the other method learnt anything and, of the growth, whichever domain is left out; *the opposite*, all "
        "below. *Not testable here*: the other method learnt nothing in any setting, or there was nothing to learn or to compare. "
        f"None of this settles what holds at the paper's scale: one small base, one data source, {STEPS} steps."
    )
    yield ""
    yield "## What it shows"
    yield ""
    yield from matrix(WHOLE, results, compared)
    yield ""
    yield from (f"- {one}" for one in findings(compared, costs, [name for name in NAMES if name not in compared]))
    yield ""
    yield "## The domains"
    yield ""
    yield from domain_table(measured)
    yield ""
    yield (
        "Mismatch is measured as in every job (docs/guides/read-the-metrics.md): the similarity, in colours and edges, of what the base draws "
        "for the training prompts to the chosen images; 1 is none, lower is farther. The order is by that measurement; the "
        "paper has safety after culture."
    )
    yield ""
    yield "## Results"
    yield ""
    yield from tables(WHOLE, results)
    yield ""
    yield from advantage(compared, learnt_too, pictures)
    yield from size_section(results, pictures)
    yield from beta_section(results, pictures)
    yield from cost_section(results)
    yield from sheet_section(pictures)
    yield from how(load_scorers())
    yield from search_section(results)


def _compared(results: Results, measured: dict[Name, mismatch.Measured], *, learnt_too: bool) -> dict[Name, Comparison]:
    return {
        domain: compare(domain, measured[domain].similarity, WHOLE, results, learnt_too=learnt_too)
        for domain in finished_domains(WHOLE, results)
        if domain in measured
    }
