"""Pydantic's errors in our words."""

from __future__ import annotations

import pytest

from api.fine_tuning.request import parse
from trainer.spec.method_facts import METHODS, listed

pytestmark = pytest.mark.unit


def messages(**options: object) -> list[str]:
    _, field_errors = parse({"model": "m", "training_file": "f"} | options)
    return [field_error.message for field_error in field_errors]


def test_the_arms_of_a_union_are_one_fault() -> None:
    assert messages(method={"type": "mapo", "mapo": {"hyperparameters": {"batch_size": 5000}}}) == [
        "method.mapo.hyperparameters.batch_size: should be less than or equal to 4096 or should be 'auto' "
        "(given: 5000)."
    ]


def test_an_unknown_field_names_its_siblings() -> None:
    assert messages(validation={"size": 4}) == [
        "validation.size: unknown field; allowed here: draws, max_pairs, pairs_at_checkpoints, patience, share."
    ]


def test_a_rule_across_fields_is_reported_in_its_own_words() -> None:
    [message] = messages(method={"type": "mapo", "mapo": {"hyperparameters": {"max_steps": 1, "n_epochs": 2}}})
    assert message.startswith("method.mapo.hyperparameters: give max_steps or n_epochs, not both (given: ")


def test_a_long_value_is_cut_in_the_message() -> None:
    [message] = messages(suffix="s" * 500)
    assert len(message) < 200
    assert message.endswith("…).")


def test_a_missing_field_is_named() -> None:
    _, field_errors = parse({"model": "m", "method": {"mapo": {}}})
    assert {field_error.message for field_error in field_errors} == {
        "training_file: required, but not given.",
        f"method.type: required, but not given; should be {listed(map(repr, METHODS))}.",
    }


def test_an_unknown_method_is_reported_with_the_existing_ones() -> None:
    assert messages(method={"type": "supervised"}) == [
        f'method.type: should be {listed(map(repr, METHODS))} (given: "supervised").'
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ({"type": "dpo", "dpo": {"hyperparameters": {"beta": -1}}}, "method.dpo.hyperparameters.beta"),
        ({"type": "dpo", "mapo": {}}, "method.mapo"),
        ({"type": "dpo", "dpo": {}, "mapo": {}}, "method.mapo"),
        ({"type": "dpo", "dpo": {"mapo": {}}}, "method.dpo.mapo"),
        ({"type": "dreambooth"}, "method.dreambooth"),
        ({"type": "dreambooth", "dreambooth": {}}, "method.dreambooth.hyperparameters"),
        ({"type": "sft", "sft": 3}, "method.sft"),
        ("dpo", "method"),
    ],
)
def test_a_fault_within_a_method_has_the_path_that_the_client_wrote(method: object, path: str) -> None:
    [message] = messages(method=method)
    assert message.startswith(f"{path}: ")
    assert "Method" not in message


def test_the_wrong_item_of_a_list_is_named_and_the_list_is_not() -> None:
    [message] = messages(adapter={"target_modules": ["to_q", "to k"]})
    assert message.startswith("adapter.target_modules.1: should match pattern ")


def test_no_class_of_ours_is_named_where_an_object_is_wanted() -> None:
    assert messages(adapter=4) == ["adapter: should be an object (given: 4)."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"hyperparameters": {"n_epochs": 0}},
            "hyperparameters.n_epochs: should be greater than or equal to 1 or should be 'auto' (given: 0).",
        ),
        ({"hyperparameters": [3]}, "hyperparameters: should be an object (given: [3])."),
        (
            {"hyperparameters": {"learning_rate_multiplier": "2"}},
            "hyperparameters.learning_rate_multiplier: should be a number or 'auto' (given: \"2\").",
        ),
        (
            {
                "hyperparameters": {"n_epochs": 3},
                "method": {"type": "sft", "sft": {"hyperparameters": {"n_epochs": 2}}},
            },
            "hyperparameters.n_epochs: method.sft.hyperparameters.n_epochs has another value; give it once.",
        ),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"learning_rate_multiplier": 2.0}}}},
            "method.dpo.hyperparameters.learning_rate_multiplier: unknown field; give learning_rate, the rate itself.",
        ),
    ],
)
def test_fields_that_openais_clients_send_are_answered_with_what_to_write(
    options: dict[str, object], message: str
) -> None:
    assert messages(**options) == [message]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"compute": {"pairs": "streamed"}, "adapter": {"dropout": 0.1}}, "compute.pairs"),
        ({"sampling": {"every_steps": 10}}, "sampling.every_steps"),
        (
            {"method": {"type": "dreambooth", "dreambooth": {"hyperparameters": {}}}},
            "method.dreambooth.hyperparameters",
        ),
        (
            {"method": {"type": "mapo", "mapo": {"hyperparameters": {"preset": "style", "beta": 8}}}},
            "method.mapo.hyperparameters",
        ),
        (
            {"method": {"type": "mapo", "mapo": {"hyperparameters": {"preset": "style", "form": "reference-code"}}}},
            "method.mapo.hyperparameters",
        ),
        (
            {
                "method": {
                    "type": "dreambooth",
                    "dreambooth": {"hyperparameters": {"instance_prompt": "a sks dog", "class_prompt": "a dog"}},
                },
                "adapter": {"token": {"text": "<toy>", "initial": "dog"}},
            },
            "adapter.token.text",
        ),
    ],
)
def test_fields_that_cannot_go_together_are_refused_by_the_one_to_change(options: dict[str, object], path: str) -> None:
    [message] = messages(**options)
    assert message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    "options",
    [
        {"compute": {"pairs": "streamed"}},
        {"compute": {"pairs": "joint"}, "adapter": {"dropout": 0.1}},
        {"sampling": {"every_steps": 10, "prompts": ["a fox"]}},
        {"checkpoints": {"every_steps": 1000}, "method": {"type": "sft", "sft": {"hyperparameters": {"max_steps": 9}}}},
        {"method": {"type": "dreambooth", "dreambooth": {"hyperparameters": {"prior_weight": 0}}}},
    ],
)
def test_what_goes_together_is_taken(options: dict[str, object]) -> None:
    assert messages(**options) == []
