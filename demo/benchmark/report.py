"""docs/benchmark.md from the results: every figure, and every sentence that depends on one, is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from demo.benchmark import cost, mismatch
from demo.benchmark.claims import claims
from demo.benchmark.comparison import Comparison, compare
from demo.benchmark.domains import NAMES, Name
from demo.benchmark.effects import advantage, beta_section, cost_section, size_section
from demo.benchmark.findings import findings
from demo.benchmark.how import how
from demo.benchmark.plan import WHOLE, Scope
from demo.benchmark.published import finished_domains
from demo.benchmark.scorers import load_scorers
from demo.benchmark.searched import search_section
from demo.benchmark.sheets import sheets
from demo.benchmark.tables import domain_table, matrix, tables
from demo.benchmark.trial import Results

PAGE, PICTURES = Path("docs/benchmark.md"), Path("docs/images/benchmark")


def write_report(results: Results, home: Path, to: Path = PAGE, pictures: Path = PICTURES) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("\n".join(page(results, home, pictures)), encoding="utf-8")
    print(f"{to}: {len(finished_domains(WHOLE, results))} domains")


def write_quick(scope: Scope, results: Results, home: Path) -> None:
    """The table of the narrow run, to the terminal and to a page of its own."""
    text = "\n".join(["# One domain, two methods", "", *tables(scope, results)])
    home.mkdir(parents=True, exist_ok=True)
    (home / "report.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nWritten to {home / 'report.md'}. The whole benchmark: {PAGE}.")


def page(results: Results, home: Path, pictures: Path = PICTURES) -> Iterator[str]:
    """The page's lines; its pictures are written to ``pictures`` on the way."""
    measured, costs = mismatch.read(results.folder), cost.read(results.folder)
    compared, learnt_too = (_compared(results, measured, learnt_too=also) for also in (False, True))
    yield "# The paper's claims on a small bench"
    yield ""
    yield (
        "MaPO's paper ([arXiv 2406.06424](https://arxiv.org/abs/2406.06424)) says that its advantage over Diffusion-DPO and "
        "DreamBooth grows with the reference mismatch, and that it needs less time and memory. This page shows what holds of "
        "that on `emoji-xl`, a Stable Diffusion XL whose UNet has 11 million parameters, in five domains made from OpenMoji. "
        "`make bench-claims` made it: every figure, and every sentence that depends on one, is computed. `make bench-claims QUICK=1` runs "
        "one domain and two methods in a few minutes."
    )
    yield ""
    yield "## The paper's claims"
    yield ""
    yield "| the paper says | here | |"
    yield "|---|---|---|"
    for claim in claims(compared, costs):
        yield f"| {claim.says} | {claim.here} | **{claim.verdict}** |"
    yield ""
    yield (
        "Differences are of success, with 95% intervals over seeds and prompts. *Reproduced* needs intervals above zero in every "
        "domain named where the other method learnt anything and, of the growth, whichever domain is left out. None of this settles "
        "what holds at the paper's scale: one small base, one data source, 120 steps."
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
        "Mismatch is measured as in every job (docs/metrics.md): the similarity, in colours and edges, of what the base draws "
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
    yield from sheets(results, home, pictures)
    yield from how(load_scorers())
    yield from search_section(results)


def _compared(results: Results, measured: dict[Name, mismatch.Measured], *, learnt_too: bool) -> dict[Name, Comparison]:
    return {
        domain: compare(domain, measured[domain].similarity, WHOLE, results, learnt_too=learnt_too)
        for domain in finished_domains(WHOLE, results)
        if domain in measured
    }
