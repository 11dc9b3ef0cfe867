from __future__ import annotations

import pytest

from intake.images.image_folder import StoredImage
from intake.pairs import PreparedPair
from intake.review import Review, ReviewedPair
from trainer.run_directory.split import hold_out
from trainer.spec.manifest import ManifestPair
from trainer.spec.same import connected, same_prompt
from worker.training.leakage import warnings

pytestmark = pytest.mark.unit

SAME = [
    ("a fox", "A Fox"),
    ("a fox", " a \t fox\n"),
    ("caf\u00e9", "cafe\u0301"),
    ("\uff41 fox", "a fox"),
    ("stra\u00dfe", "STRASSE"),
    ("a\u00a0fox", "a fox"),
    ("fi\ufb01", "fifi"),
    ("zero\u200bwidth", "zerowidth"),
    ("\ufeffa fox", "a fox"),
    ("\u1e9b\u0323", "\u1e69"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_prompts_that_differ_in_form_alone_are_one(one: str, other: str) -> None:
    assert same_prompt(one) == same_prompt(other)


@pytest.mark.parametrize(("one", "other"), [("a fox", "a fix"), ("a fox", "afox"), ("fox, red", "fox red"), ("a", "")])
def test_other_prompts_are_others(one: str, other: str) -> None:
    assert same_prompt(one) != same_prompt(other)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_review_the_split_and_the_check_of_leakage_agree(one: str, other: str) -> None:
    images = [StoredImage(name * 64, 512, 512, bytes([shade]) * 192, False) for name, shade in (("a", 0), ("b", 200))]
    review = Review("metadata.jsonl")
    for row, (prompt, image) in enumerate(zip((one, other), images, strict=True), start=1):
        list(review.add(ReviewedPair(PreparedPair(row, prompt, image.sha256, None), image, None)))
    assert review.figures().prompts == 1
    items = [(prompt, "train") for prompt in (one, other, "third", "fourth")]
    training, validation, _ = hold_out(items, prompt=lambda item: item, limit=1000, share=0.5)
    assert {one, other} <= set(training) or {one, other} <= set(validation)
    pairs = [ManifestPair(id="1", prompt=one, chosen="x", split="train")]
    pairs.append(ManifestPair(id="2", prompt=other, chosen="y", split="validation"))
    assert [warned.code for warned in warnings(pairs)] == ["prompt_leaked"]


def test_what_is_connected_through_others_is_connected() -> None:
    assert connected([["a", "x"], ["b", "x"], ["c"], ["b", "y"], ["y", "z"], []]) == [0, 0, 2, 0, 0, 5]
    assert connected([["z"], ["a"], ["a", "z"]]) == [0, 0, 0]
