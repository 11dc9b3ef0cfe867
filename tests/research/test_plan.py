from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research.plan import CONFIRMING_SEED, SEEDS, SIZES, WHOLE, Scope, best_of, chosen, final, search, wanted
from research.trial import Result, Results, Trial

pytestmark = pytest.mark.unit


def result(trial: Trial, success: float, fidelity: float = 1.0) -> Result:
    return Result(
        trial=trial,
        domain_score=[[success]],
        fidelity=[[fidelity]],
        success=[[success]],
        base_domain_score=[[0.0]],
        base_fidelity=[[1.0]],
        base_success=[[0.0]],
        implicit_accuracy=(0.5, 0.4, 0.6),
        base_implicit_accuracy=0.0,
        chosen_loss=0.1,
        rejected_loss=0.2,
        base_chosen_loss=0.3,
        base_rejected_loss=0.1,
        seconds=1.0,
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def finish(trials: list[Trial], results: Results, best: float) -> None:
    """The trial whose learning rate is ``best`` succeeds most."""
    for trial in trials:
        results.put(result(trial, 0.9 if trial.learning_rate == best else 0.1))


def test_the_search_tries_betas_at_the_best_learning_rate_only_when_all_rates_are_known(results: Results) -> None:
    first = list(search("style", "mapo", results))
    assert [trial.learning_rate for trial in first] == [5e-4, 1.5e-3, 4.5e-3]
    assert {trial.beta for trial in first} == {64.0}
    finish(first[:2], results, best=1.5e-3)
    assert list(search("style", "mapo", results)) == first
    finish(first[2:], results, best=1.5e-3)
    low, high = list(search("style", "mapo", results))[3:]
    assert (low.learning_rate, low.beta) == (1.5e-3, 8.0)
    assert (high.learning_rate, high.beta) == (1.5e-3, 512.0)


@pytest.mark.parametrize("method", ["sft", "dpo", "mapo", "mapo-code"])
def test_every_method_gets_five_trials_and_one_that_confirms_the_best(results: Results, method: str) -> None:
    for _ in range(3):
        finish(list(search("style", method, results)), results, best=1.5e-3)  # type: ignore[arg-type]
    trials = list(search("style", method, results))  # type: ignore[arg-type]
    assert len({replace(trial, seed=0) for trial in trials}) == 5
    assert [trial.seed for trial in trials] == [0] * 5 + [CONFIRMING_SEED]


@pytest.mark.parametrize(("best", "further"), [(5e-4, 5e-4 / 3), (4.5e-3, 1.35e-2)])
def test_a_best_rate_at_the_end_requires_one_beyond_it(results: Results, best: float, further: float) -> None:
    for _ in range(4):
        finish(list(search("style", "dpo", results)), results, best=best)
    trials = list(search("style", "dpo", results))
    assert trials[5].learning_rate == pytest.approx(further)
    assert [trial.seed for trial in trials] == [0] * 6 + [CONFIRMING_SEED]
    assert trials[6].learning_rate == best


def test_a_lucky_first_run_does_not_win(results: Results) -> None:
    def outcome(trial: Trial) -> float:
        if trial.learning_rate == 4.5e-3:  # falls apart with any other seed
            return 0.9 if trial.seed == 0 else 0.0
        return 0.6

    for _ in range(6):
        for trial in search("style", "sft", results):
            results.put(result(trial, outcome(trial)))
    best = chosen("style", "sft", WHOLE, results)
    assert best is not None
    assert best.learning_rate != 4.5e-3
    assert results.get(replace(best, seed=CONFIRMING_SEED)) is not None


def test_a_method_without_beta_tries_nearer_learning_rates(results: Results) -> None:
    finish(list(search("style", "sft", results)), results, best=1.5e-3)
    lower, higher = list(search("style", "sft", results))[3:]
    assert 5e-4 < lower.learning_rate < 1.5e-3 < higher.learning_rate < 4.5e-3
    assert lower.beta is None


def test_what_is_published_is_trained_with_other_seeds_and_scored_on_other_emoji(results: Results) -> None:
    assert list(final("style", "mapo", WHOLE, results)) == []
    finish(list(search("style", "mapo", results)), results, best=1.5e-3)
    for _ in range(2):
        for trial in list(search("style", "mapo", results))[3:]:
            results.put(result(trial, 0.95 if trial.beta == 8.0 else 0.0))
    published = list(final("style", "mapo", WHOLE, results))
    assert [trial.seed for trial in published] == list(SEEDS)
    assert all(trial.split == "test" and trial.beta == 8.0 for trial in published)


def test_a_new_subject_is_chosen_by_what_other_prompts_still_show_too(results: Results) -> None:
    faithful, forgetful = (Trial("personalization", "sft", rate, None, 0, "validation") for rate in (1e-3, 5e-3))
    results.put(result(faithful, 0.8, fidelity=0.9))
    results.put(result(forgetful, 0.9, fidelity=0.2))
    assert best_of([faithful, forgetful], results) == faithful


def test_equal_trials_are_distinguished_by_their_chosen_loss(results: Results) -> None:
    one = Trial("style", "sft", 1e-3, None, 0, "validation")
    other = replace(one, learning_rate=2e-3)
    results.put(replace(result(one, 0.5), chosen_loss=0.3))
    results.put(replace(result(other, 0.5), chosen_loss=0.2))
    assert best_of([one, other], results) == other


def test_a_narrow_run_takes_over_what_the_whole_one_chose(results: Results, tmp_path: Path) -> None:
    for method in ("mapo", "dpo"):
        for _ in range(3):
            finish(list(search("style", method, results)), results, best=1.5e-3)
    narrow = Scope(("style",), ("dpo", "mapo"), seeds=(1,), sweeps=False, chosen_by=results)
    trials = list(wanted(narrow, Results(tmp_path / "narrow")))
    assert {(trial.method, trial.split, trial.seed) for trial in trials} == {("dpo", "test", 1), ("mapo", "test", 1)}


def test_the_whole_plan_ends(results: Results) -> None:
    """Asked again after each round of results it wants a finite number of trials, and no two of one name."""
    for _ in range(8):
        for trial in list(wanted(WHOLE, results)):
            if results.get(trial) is None:
                results.put(result(trial, 0.5))
    trials = set(wanted(WHOLE, results))
    assert all(results.get(trial) is not None for trial in trials)
    assert len({trial.key for trial in trials}) == len(trials)
    assert {trial.pairs for trial in trials} == {None, *SIZES}
    assert {trial.method for trial in trials if trial.domain == "personalization"} >= {"dreambooth", "dco"}
    assert not {trial.method for trial in trials if trial.domain == "style"} & {"dreambooth", "dco"}
    assert chosen("style", "sft", WHOLE, results) is not None


def test_a_result_is_the_same_after_reading_it_back(results: Results) -> None:
    trial = Trial("style", "mapo", 1.5e-3, 64.0, 1, "test", pairs=12)
    results.put(result(trial, 0.25))
    assert Results(results.folder).get(trial) == result(trial, 0.25)
