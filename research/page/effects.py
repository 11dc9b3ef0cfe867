"""The report's sections on the effects of mismatch, number of pairs and beta, and on the cost of a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from demo.emoji.domains import DOMAINS, Name, telling
from research.data import BATCH
from research.page import plots
from research.page.published import complete
from research.page.tables import spread
from research.plan import BETAS, SIZED, SIZES, SWEPT_DOMAIN, WHOLE, betas, final, sizes
from research.statistics.claims import PAPER_MEMORY, PAPER_TIME
from research.statistics.comparison import AGAINST_DPO, Comparison
from research.statistics.growth import FEWEST, growth
from research.statistics.intervals import Interval, interval, success
from research.trial import TITLES, Results
from research.trials import cost

FOLDER = "images/benchmark"  # of the pictures, as the page links them


def advantage(compared: dict[Name, Comparison], learnt_too: dict[Name, Comparison], folder: Path) -> Iterator[str]:
    """``learnt_too``: the same with the prompt counted that the new subject was learnt with."""
    if not compared:
        return
    plots.scatter(
        folder / "advantage.svg",
        {
            "MaPO (paper) - Diffusion-DPO": {
                name: (1 - one.similarity, one.over_dpo) for name, one in compared.items()
            },
            "MaPO (paper) - SFT": {name: (1 - one.similarity, one.over_sft) for name, one in compared.items()},
        },
        x="reference mismatch (1 - similarity)",
        y="difference of success",
    )
    yield "## MaPO's advantage against the mismatch"
    yield ""
    yield f"![Success of MaPO less that of Diffusion-DPO and of SFT, by mismatch]({FOLDER}/advantage.svg)"
    yield ""
    yield "| domain | mismatch | MaPO - DPO | MaPO - SFT | reference code - DPO | SFT - DPO |"
    yield "|---|---|---|---|---|---|"
    for name, one in sorted(compared.items(), key=lambda item: 1 - item[1].similarity):
        cells = [spread(value, 3) for value in (one.over_dpo, one.over_sft, one.code_over_dpo, one.sft_over_dpo)]
        yield f"| {name} | {1 - one.similarity:.2f} | {' | '.join(cells)} |"
    yield ""
    if len(compared) > FEWEST:
        yield from _left_out(compared, learnt_too)


def _left_out(compared: dict[Name, Comparison], learnt_too: dict[Name, Comparison]) -> Iterator[str]:
    yield (
        "Rank correlation of an advantage over Diffusion-DPO with the mismatch, with all domains, with each left out in turn, "
        "and with all where the prompt that the new subject was learnt with counts as a test prompt too:"
    )
    yield ""
    yield f"| | all (95%) | {' | '.join(f'without {name}' for name in compared)} | all, learnt prompt too |"
    yield f"|---|---|{'---|' * len(compared)}---|"
    for method in AGAINST_DPO:
        found, wider = growth(compared, method), growth(learnt_too, method)
        without = " | ".join(f"{found.without[name]:+.2f}" for name in compared)
        yield f"| {TITLES[method]} | {spread(found.over_all)} | {without} | {wider.over_all.mean:+.2f} |"
    yield ""
    yield (
        f"Of {len(compared)} domains a rank correlation takes few values, and one domain can make it or undo it; the interval is "
        "over seeds and prompts alone, as if no other domains were possible."
    )
    yield ""


def size_section(results: Results, folder: Path) -> Iterator[str]:
    series: dict[str, list[tuple[float, Interval]]] = {}
    whole = len(telling(DOMAINS[SWEPT_DOMAIN], "train"))
    for method in SIZED:
        points = []
        trials = list(sizes(method, WHOLE, results))
        for pairs in (*SIZES, whole):
            of_size = [trial for trial in trials if trial.pairs == pairs] or list(
                final(SWEPT_DOMAIN, method, WHOLE, results)
            )
            if found := complete(of_size, results):
                points.append((float(pairs), interval(success(found))))
        if len(points) > 1:
            series[TITLES[method]] = points
    if not series:
        return
    plots.lines(folder / "sizes.svg", series, x=f"training pairs ({SWEPT_DOMAIN})", y="success on test prompts")
    yield "## How many pairs it takes"
    yield ""
    yield f"The same steps and batch on fewer pairs of the domain {SWEPT_DOMAIN}, spread over the catalogue."
    yield ""
    yield f"![Success by number of training pairs]({FOLDER}/sizes.svg)"
    yield ""
    yield from _series_table("pairs", series)


def beta_section(results: Results, folder: Path) -> Iterator[str]:
    trials = list(betas(WHOLE, results))
    by_beta = {at: complete([trial for trial in trials if trial.beta == at], results) for at in BETAS}
    if not all(by_beta.values()):
        return
    points = [(at, interval(success(found))) for at, found in by_beta.items()]
    series = {TITLES["mapo"]: points}
    plots.lines(
        folder / "betas.svg", series, x=f"beta of MaPO's paper form ({SWEPT_DOMAIN})", y="success on test prompts"
    )
    yield "## MaPO's beta"
    yield ""
    yield f"At the learning rate chosen for the domain {SWEPT_DOMAIN}; the paper's best beta for its style domain is 64."
    yield ""
    yield f"![Success by beta]({FOLDER}/betas.svg)"
    yield ""
    yield from _series_table("beta", series)
    beta, best = max(points, key=lambda point: point[1].mean)
    ahead = success(by_beta[beta])
    alike = [f"{at:g}" for at in BETAS if at != beta and interval(ahead - success(by_beta[at])).low <= 0]
    statement = f"not told apart from {', '.join(alike)}" if alike else "above all others"
    yield f"Best here: {beta:g} ({best.mean:.2f}), {statement} by the intervals of the paired differences."
    yield ""


def _series_table(first: str, series: dict[str, list[tuple[float, Interval]]]) -> Iterator[str]:
    columns = sorted({at for points in series.values() for at, _ in points})
    yield f"| {first} | {' | '.join(f'{at:g}' for at in columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for name, points in series.items():
        known = dict(points)
        yield f"| {name} | {' | '.join(spread(known[at]) if at in known else '' for at in columns)} |"
    yield ""


def cost_section(results: Results) -> Iterator[str]:
    costs = cost.read(results.folder)
    if not costs:
        return
    yield "## Time and memory"
    yield ""
    yield (
        f"Each method in a process of its own, {cost.TURNS} turns of {cost.STEPS} steps of {BATCH} pairs, one after the other; "
        f"two CPU cores, fp32. Ratios are taken within a turn. The paper reports {PAPER_TIME} of Diffusion-DPO's time and "
        f"{PAPER_MEMORY} of its memory, against a DPO that holds a second copy of the model; here, as usual with adapters, the "
        "reference is the same network with the adapter off."
    )
    yield ""
    yield "| method | seconds a step | time / Diffusion-DPO (quartiles) | peak memory of the process, MiB | memory / Diffusion-DPO |"
    yield "|---|---|---|---|---|"
    for method, one in costs.items():
        yield (
            f"| {TITLES[method]} | {one.seconds:.3f} | {one.time_ratio:.2f} ({one.time_ratio_low:.2f} to "
            f"{one.time_ratio_high:.2f}) | {one.peak_bytes / 2**20:.0f} | {one.memory_ratio:.2f} |"
        )
    yield ""
