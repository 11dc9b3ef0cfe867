"""Pydantic's errors in our words."""

from __future__ import annotations

import pytest

from api.fine_tuning.request import parse

pytestmark = pytest.mark.unit


def messages(**options: object) -> list[str]:
    _, faults = parse({"model": "m", "training_file": "f"} | options)
    return [fault.message for fault in faults]


def test_the_arms_of_a_union_are_one_fault() -> None:
    assert messages(method={"type": "mapo", "mapo": {"hyperparameters": {"batch_size": 5000}}}) == [
        "method.mapo.hyperparameters.batch_size: should be less than or equal to 4096 or should be 'auto' "
        "(given: 5000)."
    ]


def test_an_unknown_field_names_its_siblings() -> None:
    assert messages(adapter={"size": 4}) == ["adapter.size: unknown field; known here: alpha, rank."]


def test_a_rule_across_fields_is_told_in_its_own_words() -> None:
    [message] = messages(method={"type": "mapo", "mapo": {"hyperparameters": {"max_steps": 1, "n_epochs": 2}}})
    assert message.startswith("method.mapo.hyperparameters: give max_steps or n_epochs, not both (given: ")


def test_a_long_value_is_cut_in_the_message() -> None:
    [message] = messages(suffix="s" * 500)
    assert len(message) < 200
    assert message.endswith("…).")


def test_a_missing_field_is_named() -> None:
    _, faults = parse({"model": "m", "method": {"mapo": {}}})
    assert {fault.message for fault in faults} == {
        "training_file: required, but not given.",
        "method.type: required, but not given.",
    }
