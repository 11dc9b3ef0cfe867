"""What an update does to each kind of parameter, and what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.spec.run import Adapter
from trainer.training.trainable import Trainable, dropouts, groups, new_optimizer

pytestmark = pytest.mark.unit

RATE, DECAY = 0.1, 0.5
LAYER, ENCODER = "down_blocks.0.to_q.lora_A.default.weight", "text_encoder.q_proj.lora_A.default.weight"
WORD, OTHER_WORD = "text_encoder.token", "text_encoder_2.token"
ALL = {"text_encoder": {"rank": 2}, "token": {"text": "<toy>", "initial": "cat"}}


def trainable(adapter: Mapping[str, Any] = ALL, *, decay: float = DECAY, network: nn.Module | None = None) -> Trainable:
    """Of parameters that are all ones."""
    parameters = {name: nn.Parameter(torch.ones(3)) for name in (LAYER, ENCODER, WORD, OTHER_WORD)}
    parameter_groups = groups(parameters, Adapter.model_validate(adapter), RATE)
    off_and_on = dropouts([network]) if network is not None else ()
    return Trainable(None, parameters, new_optimizer("adamw", parameter_groups, weight_decay=decay), off_and_on)  # type: ignore[arg-type]


def update(subject: Trainable, gradient: float) -> None:
    for parameter in subject.parameters.values():
        parameter.grad = torch.full_like(parameter, gradient)
    for group in subject.optimizer.param_groups:
        group["lr"] = RATE * group["scale"]
    subject.optimizer.step()
    subject.optimizer.zero_grad(set_to_none=True)


def ones(parameter: Tensor, value: float) -> None:
    torch.testing.assert_close(parameter.detach(), torch.full((3,), value))


def test_learned_words_are_not_decayed_and_everything_else_is() -> None:
    subject = trainable()
    update(subject, gradient=0.0)
    assert torch.equal(subject.parameters[WORD], torch.ones(3))
    assert torch.equal(subject.parameters[OTHER_WORD], torch.ones(3))
    ones(subject.parameters[LAYER], 1 - RATE * DECAY)
    ones(subject.parameters[ENCODER], 1 - RATE * DECAY / 10)


def test_without_decay_nothing_is_decayed() -> None:
    subject = trainable(decay=0.0)
    update(subject, gradient=0.0)
    assert all(torch.equal(parameter, torch.ones(3)) for parameter in subject.parameters.values())


@pytest.mark.parametrize(
    ("text", "token", "rates"),
    [(None, None, (1.0, 0.1, 10.0)), (0.02, 0.3, (1.0, 0.2, 3.0))],
)
def test_each_group_moves_at_its_own_rate(
    text: float | None, token: float | None, rates: tuple[float, float, float]
) -> None:
    """AdamW's first update is the rate, whatever the gradient's length."""
    adapter = {
        "text_encoder": {"rank": 2} | ({"learning_rate": text} if text else {}),
        "token": {"text": "<toy>", "initial": "cat"} | ({"learning_rate": token} if token else {}),
    }
    subject = trainable(adapter, decay=0.0)
    update(subject, gradient=1.0)
    for name, scale in zip((LAYER, ENCODER, WORD), rates, strict=True):
        ones(subject.parameters[name], 1 - RATE * scale)
    ones(subject.parameters[OTHER_WORD], 1 - RATE * rates[2])


def test_weights_of_a_checkpoint_do_not_change_as_training_goes_on() -> None:
    subject = trainable()
    before = subject.weights()
    update(subject, gradient=1.0)
    assert all(torch.equal(weights, torch.ones(3)) for weights in before.values())
    subject.load_weights(before)
    assert all(torch.equal(parameter, torch.ones(3)) for parameter in subject.parameters.values())


def test_a_resumed_optimizer_goes_on_as_the_straight_one() -> None:
    straight, resumed, forgetful = trainable(), trainable(), trainable()
    for gradient in (1.0, -3.0, 2.0):
        update(straight, gradient)
    for other in (resumed, forgetful):
        other.load_weights(straight.weights())
    resumed.load_optimizer_state({name: state.clone() for name, state in straight.optimizer_state().items()})
    for subject in (straight, resumed, forgetful):
        update(subject, 0.5)
    for name, parameter in straight.parameters.items():
        assert torch.equal(resumed.parameters[name], parameter)
        assert not torch.equal(forgetful.parameters[name], parameter)


class Adapted(nn.Module):
    """With the adapter's dropout, one that is the base's, and one of an adapter that wants none."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.5)})
        self.base_dropout = nn.Dropout(0.5)
        self.never = nn.ModuleDict({"lora_dropout": nn.Dropout(0.0)})
        self.eval()


def mask(subject: Trainable, network: Adapted, *, seed: int = 1, step: int = 1, rank: int = 0) -> Tensor:
    """Which of 200 inputs are passed on."""
    with subject.training(seed, step, rank):
        assert not network.base_dropout.training
        passed: Tensor = network.lora_dropout["default"](torch.ones(200)) > 0
    return passed


def test_dropout_is_keyed_by_seed_step_and_process_and_on_in_training_alone() -> None:
    network = Adapted()
    subject = trainable(network=network)
    first = mask(subject, network)
    assert 60 < first.sum() < 140
    torch.manual_seed(99)  # wherever the run was resumed
    assert torch.equal(mask(subject, network), first)
    for other in (mask(subject, network, step=2), mask(subject, network, seed=2), mask(subject, network, rank=1)):
        assert not torch.equal(other, first)
    assert torch.equal(network.lora_dropout["default"](torch.ones(200)), torch.ones(200))
    assert [type(module) for module in subject.dropouts] == [nn.Dropout]
