"""Each method's recipe hands every loss of a pair to its objective in the right place."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainer.objectives.objective import PairLosses
from trainer.recipe import objective_of
from trainer.spec.method_facts import METHODS
from trainer.spec.run import TrainingOptions

pytestmark = pytest.mark.unit

CHOSEN, REJECTED, BASE_CHOSEN, BASE_REJECTED, PRIOR = 0.1, 0.2, 0.4, 0.8, 1.6
PAIR = PairLosses(*(torch.tensor([loss]) for loss in (CHOSEN, REJECTED, BASE_CHOSEN, BASE_REJECTED, PRIOR)))


def minus_log_sigmoid(x: float) -> float:
    return math.log1p(math.exp(-x))


def phi(loss: float, power: float = 1.0) -> float:
    return math.pow(loss / math.expm1(loss), power)


PAPER = CHOSEN + minus_log_sigmoid(phi(CHOSEN, 8) - phi(REJECTED, 8)) / 8
REFERENCE_CODE = CHOSEN + 0.1 * minus_log_sigmoid(1000 * (phi(CHOSEN / 2) - phi(REJECTED / 2)))
DPO = minus_log_sigmoid(-20 / 2 * ((CHOSEN - REJECTED) - (BASE_CHOSEN - BASE_REJECTED)))
# By method: its hyperparameters, beta, and the value worked by hand (the formulas stand in trainer/objectives).
CASES: dict[str, tuple[str, dict[str, Any], float | None, float]] = {
    "mapo paper": ("mapo", {"form": "paper"}, 8.0, PAPER),
    "mapo reference-code": ("mapo", {"form": "reference-code"}, 0.1, REFERENCE_CODE),
    "dpo": ("dpo", {}, 20.0, DPO),
    "sft": ("sft", {}, None, CHOSEN),
    "dco": ("dco", {}, 20.0, minus_log_sigmoid(-20 * (CHOSEN - BASE_CHOSEN))),
    "dreambooth": ("dreambooth", {"class_prompt": "a dog", "prior_weight": 0.25}, None, CHOSEN + 0.25 * PRIOR),
}


@pytest.mark.parametrize("name", CASES)
def test_an_objective_takes_each_loss_by_its_name(name: str) -> None:
    method, hyperparameters, beta, expected = CASES[name]
    options = TrainingOptions.model_validate({"method": {"type": method, method: {"hyperparameters": hyperparameters}}})
    found = objective_of(options.method, beta, num_train_timesteps=1000).loss(PAIR)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)


def test_dreambooth_measures_a_held_out_pair_by_its_chosen_image_alone() -> None:
    _, hyperparameters, _, _ = CASES["dreambooth"]
    options = TrainingOptions.model_validate(
        {"method": {"type": "dreambooth", "dreambooth": {"hyperparameters": hyperparameters}}}
    )
    held_out = replace(PAIR, prior=None)
    assert objective_of(options.method, None, num_train_timesteps=1000).loss(held_out).tolist() == pytest.approx(
        [CHOSEN]
    )


def test_every_method_is_here() -> None:
    assert {method for method, *_ in CASES.values()} == METHODS.keys()
