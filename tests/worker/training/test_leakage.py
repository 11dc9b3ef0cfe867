from __future__ import annotations

import pytest

from trainer.spec.manifest import ManifestPair
from worker.training.leakage import warnings

pytestmark = pytest.mark.unit


def pair(name: str, prompt: str, split: str, *, chosen: str | None = None, rejected: str | None = None) -> ManifestPair:
    return ManifestPair.model_validate(
        {"id": name, "prompt": prompt, "chosen": chosen or f"images/{name}", "rejected": rejected, "split": split}
    )


def test_prompts_that_are_trained_on_and_validated_on_are_counted_and_named() -> None:
    pairs = [pair(f"t{number}", f"prompt {number}", "train") for number in range(6)]
    pairs += [pair(f"v{number}", f"  Prompt   {number}", "validation") for number in range(2, 8)]
    pairs.append(pair("v8", "prompt 2", "validation"))
    [reported] = warnings(pairs)
    assert reported.code == "prompt_leaked"
    assert reported.message.startswith("5 of 7 validation pairs have a prompt that is trained on too (")
    assert "and 1 more" in reported.message


def test_as_many_prompts_as_a_message_names_leave_none_to_count() -> None:
    pairs = [pair(f"t{number}", f"prompt {number}", "train") for number in range(3)]
    pairs += [pair(f"v{number}", f"prompt {number}", "validation") for number in range(3)]
    [warned] = warnings(pairs)
    assert "('prompt 0', 'prompt 1', 'prompt 2')" in warned.message


def test_images_that_are_trained_on_and_validated_on_are_counted_on_either_side() -> None:
    pairs = [
        pair("t1", "a fox", "train", chosen="images/a", rejected="images/b"),
        pair("v1", "a hen", "validation", chosen="images/b", rejected="images/c"),
        pair("v2", "an owl", "validation", chosen="images/c", rejected="images/a"),
        pair("v3", "an elk", "validation", chosen="images/c"),
    ]
    [reported] = warnings(pairs)
    assert (reported.code, reported.message.partition(" which")[0]) == (
        "image_leaked",
        "2 of 3 validation pairs have an image that is trained on too,",
    )


def test_nothing_is_reported_of_data_that_are_apart_or_not_marked() -> None:
    assert list(warnings([pair("t1", "a", "train"), pair("v1", "b", "validation")])) == []
    assert list(warnings([pair("t1", "a", "train"), pair("t2", "a", "train")])) == []


def test_prompts_are_printable_in_a_message() -> None:
    [reported] = warnings(
        [pair("t", "a\x1b[31m" + "x" * 500, "train"), pair("v", "a\x1b[31m" + "x" * 500, "validation")]
    )
    assert reported.message.isprintable()
    assert len(reported.message) < 400
