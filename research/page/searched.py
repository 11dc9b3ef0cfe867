"""The report's section on the hyperparameter search: what it chose, from what, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from demo.emoji.domains import NAMES, Name
from research.plan import (
    CONFIRMING_SEED,
    LEARNING_RATES,
    SEARCH_SEED,
    WHOLE,
    chosen,
    live_settings,
    mean,
    search,
    settings,
    usual_beta,
)
from research.statistics.comparison import LEARNT
from research.trial import TITLES, MethodName, Results, Trial


@dataclass(frozen=True)
class Choice:
    """``success``: on validation, the mean of two seeds; ``trials``: runs of the search, ``tried``: settings, of which
    ``live`` learnt anything; ``best``: the highest success of any of the runs."""

    trial: Trial
    success: float
    trials: int
    tried: int
    live: int
    best: float
    rate_at_edge: bool
    beta_at_edge: bool


def choices(results: Results) -> Iterator[Choice]:
    for domain in NAMES:
        for method in WHOLE.methods_in(domain):
            trial = chosen(domain, method, WHOLE, results)
            if trial is not None:
                yield _choice(trial, results)


def _choice(trial: Trial, results: Results) -> Choice:
    domain, method = trial.domain, trial.method
    tried = settings(domain, method, results)
    run = [found for one in search(domain, method, results) if (found := results.get(one)) is not None]
    both = [results.get(replace(trial, seed=seed)) for seed in (SEARCH_SEED, CONFIRMING_SEED)]
    return Choice(
        trial=trial,
        success=float(np.mean([mean(one.success) for one in both if one is not None])),
        trials=len(run),
        tried=len(tried),
        live=live_settings(domain, method, WHOLE, results, LEARNT),
        best=max(mean(one.success) for one in run),
        rate_at_edge=at_edge(trial.learning_rate, [one.learning_rate for one in tried]),
        beta_at_edge=trial.beta is not None
        and at_edge(trial.beta, [one.beta for one in tried if one.beta is not None]),
    )


def at_edge(value: float, tried: Sequence[float]) -> bool:
    """Whether nothing was tried on one side of it."""
    return not min(tried) < value < max(tried)


def search_section(results: Results) -> Iterator[str]:
    found = list(choices(results))
    yield "### What the search chose"
    yield ""
    yield "| domain | method | learning rate | beta | trials | settings, of them learnt | success on validation, two seeds |"
    yield "|---|---|---|---|---|---|---|"
    for one in found:
        beta = "" if one.trial.beta is None else f"{one.trial.beta:g}{_edge(at=one.beta_at_edge)}"
        yield (
            f"| {one.trial.domain} | {TITLES[one.trial.method]} | {one.trial.learning_rate:.2g}{_edge(at=one.rate_at_edge)} | "
            f"{beta} | {one.trials} | {one.tried}, {one.live} | {one.success:.2f} |"
        )
    yield ""
    yield from (f"- {note}" for note in search_notes(found, results))
    yield ""


def _edge(*, at: bool) -> str:
    return " (edge)" if at else ""


def search_notes(found: Sequence[Choice], results: Results) -> Iterator[str]:
    with_beta = [one for one in found if one.trial.beta is not None]
    rates, betas = (
        sum(edges) for edges in ([one.rate_at_edge for one in found], [one.beta_at_edge for one in with_beta])
    )
    yield (
        f"*Edge*: nothing beyond it was tried. That is so of {betas} of the {len(with_beta)} betas and of {rates} of the "
        f"{len(found)} rates: no best value between worse ones was shown there, and a wider search might find a better one. "
        "Elsewhere lower and higher values were tried, not always at the other value that was chosen."
    )
    yield (
        f"*Learnt*: settings whose mean success on validation is {LEARNT:g} or more above the base's. In general, where the base "
        "succeeds, none can be."
    )
    dead = [one for one in found if not one.live and one.trial.domain != "general"]
    if dead:
        listed = ", ".join(f"{TITLES[one.trial.method]} in {one.trial.domain} (at best {one.best:.3f})" for one in dead)
        yield f"No setting learnt: {listed}. What was chosen there was chosen among failures."
    few = [one for one in found if one.live == 1]
    if few:
        listed = ", ".join(f"{TITLES[one.trial.method]} in {one.trial.domain}" for one in few)
        yield f"A single setting learnt: {listed}."
    yield from _betas_of_dpo(found, results)
    for domain in NAMES:
        yield from untried_rate(domain, results)


def _betas_of_dpo(found: Sequence[Choice], results: Results) -> Iterator[str]:
    """How much hangs on a beta that steps by eight: the first run at each, at the rate that was chosen."""
    statements = []
    for one in found:
        if one.trial.method != "dpo" or not one.live:
            continue
        at_rate = [
            trial
            for trial in settings(one.trial.domain, "dpo", results)
            if trial.learning_rate == one.trial.learning_rate
        ]
        by_beta = {trial.beta or 0: mean(done.success) for trial in at_rate if (done := results.get(trial)) is not None}
        values = ", ".join(f"{by_beta[beta]:.2f} at {beta:g}" for beta in sorted(by_beta))
        statements.append(f"{one.trial.domain} {values}")
    if statements:
        yield f"Betas step by eight, which is coarse. Diffusion-DPO's success at the chosen rate: {'; '.join(statements)}."


def untried_rate(domain: Name, results: Results) -> Iterator[str]:
    """With a large beta MaPO is SFT; where SFT's best rate was not among MaPO's, a difference may be the search's."""
    sft = chosen(domain, "sft", WHOLE, results)
    tried = settings(domain, "mapo", results)
    if sft is None or sft.learning_rate in {trial.learning_rate for trial in tried}:
        return
    apart = _furthest_from_sft(domain, results)
    like = (
        f"; at the {len(LEARNING_RATES)} rates that both tried, MaPO's success with beta {usual_beta(domain, 'mapo'):g} "
        f"differs from SFT's by {f'at most {apart:.3f}' if apart >= 5e-4 else 'less than 0.001'}"
        if apart is not None
        else ""
    )
    yield (
        f"In {domain} SFT's rate {sft.learning_rate:.2g} was not tried by MaPO, which with a large beta is SFT{like}. "
        "A difference between the two may be the search's."
    )


def _furthest_from_sft(domain: Name, results: Results) -> float | None:
    """The largest difference of mean success between MaPO at the usual beta and SFT, at one rate and seed."""
    apart = []
    for rate in LEARNING_RATES:
        pair: list[tuple[MethodName, float | None]] = [("mapo", usual_beta(domain, "mapo")), ("sft", None)]
        found = [results.get(Trial(domain, name, rate, beta, SEARCH_SEED, "validation")) for name, beta in pair]
        done = [mean(one.success) for one in found if one is not None]
        if len(done) < len(pair):
            return None
        apart.append(abs(done[0] - done[1]))
    return max(apart)
