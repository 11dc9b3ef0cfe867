"""What a run trains with where it was left open, and that what was given is what it trains with."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.spec.methods import PRESET_BETAS, MapoMethod, Method, SftMethod
from trainer.spec.resolved import Resolved, resolve
from trainer.spec.run import RunSpec

pytestmark = pytest.mark.unit

BASE = {"name": "b", "family": "sdxl", "source": "b"}


def method(kind: str = "mapo", **hyperparameters: Any) -> Method:
    options = {"type": kind, kind: {"hyperparameters": hyperparameters}}
    return RunSpec.model_validate({"base": BASE, "method": options}).method


def resolved(training_pairs: int = 1000, kind: str = "mapo", **hyperparameters: Any) -> Resolved:
    return resolve(method(kind, **hyperparameters), training_pairs)


def test_defaults_are_those_that_the_descriptions_state() -> None:
    found = resolved()
    assert (found.effective_batch_size, found.batch_size) == (8, "auto")
    assert found.learning_rate == 1e-4
    assert (found.lr_scheduler, found.weight_decay, found.max_grad_norm) == ("cosine", 0.01, 1.0)
    assert found.prompt_dropout == 0.1
    assert (found.form, found.beta) == ("paper", "auto")
    assert (found.max_steps, found.warmup_steps) == (1250, 62)


def test_what_is_given_is_taken() -> None:
    given: dict[str, Any] = {
        "learning_rate": 0.5,
        "lr_scheduler": "linear",
        "warmup_steps": 3,
        "weight_decay": 0.25,
        "max_grad_norm": 2.0,
        "prompt_dropout": 0.75,
        "max_steps": 7,
        "beta": 5.0,
        "form": "reference-code",
        "batch_size": 6,
    }
    found = resolved(**given).model_dump()
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize(
    ("pairs", "options", "size"),
    [
        (1000, {}, 8),
        (5, {}, 5),
        (1000, {"batch_size": 3}, 3),
        (1000, {"batch_size": 3, "gradient_accumulation": 4}, 12),
        (1000, {"gradient_accumulation": 4}, 32),
    ],
)
def test_a_step_takes_as_many_pairs_as_all_its_batches(pairs: int, options: dict[str, Any], size: int) -> None:
    assert resolved(pairs, **options).effective_batch_size == size


@pytest.mark.parametrize(
    ("pairs", "options", "steps"),
    [
        (1000, {}, 1250),  # ten epochs of 125
        (20, {}, 100),
        (100_000, {}, 2000),
        (20, {"n_epochs": 3}, 9),  # of 8, 8 and 4 pairs
        (20, {"n_epochs": 3, "batch_size": 4, "gradient_accumulation": 2}, 9),
        (20, {"max_steps": 5}, 5),
    ],
)
def test_a_runs_length_follows_from_epochs_or_steps(pairs: int, options: dict[str, Any], steps: int) -> None:
    assert resolved(pairs, **options).max_steps == steps


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (40, 2), (1000, 50), (5000, 100)])
def test_the_warm_up_is_a_twentieth_of_the_run_and_at_most_100_steps(steps: int, warmup: int) -> None:
    assert resolved(max_steps=steps).warmup_steps == warmup


def test_a_method_has_what_is_its_own_and_nothing_of_others() -> None:
    assert (resolved(kind="dpo").form, resolved(kind="dpo").beta) == (None, "auto")
    sft = resolve(SftMethod(type="sft"), 10)
    assert (sft.form, sft.beta, sft.prior_weight) == (None, None, None)
    dreambooth = resolved(kind="dreambooth", class_prompt="a dog", prior_weight=0.5)
    assert (dreambooth.beta, dreambooth.prior_weight) == (None, 0.5)


def test_preset_betas_are_the_papers() -> None:
    """arXiv 2406.06424v2, table 4."""
    papers = {"general": 8.0, "culture": 32.0, "safety": 64.0, "style": 64.0, "personalization": 1024.0}
    assert papers == PRESET_BETAS
    assert isinstance(method(preset="style"), MapoMethod)
