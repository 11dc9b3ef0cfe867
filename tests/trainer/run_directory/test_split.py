from __future__ import annotations

import hashlib

import pytest

from trainer.run_directory.split import hold_out

pytestmark = pytest.mark.unit


def first_letter(item: str) -> str:
    return item[0]


def test_marked_pairs_are_taken_as_marked() -> None:
    items = [("a1", "train"), ("b1", "validation"), ("a2", "train")]
    assert hold_out(items, prompt=first_letter, share=0.5, limit=256) == (["a1", "a2"], ["b1"], "data")


def test_unmarked_pairs_are_held_out_by_whole_prompts() -> None:
    items = [(f"{prompt}{index}", "train") for prompt in "abcdefghij" for index in range(3)]
    training, validation, how = hold_out(items, prompt=first_letter, share=0.2, limit=256)
    assert how == "prompt"
    assert len(validation) == 6
    assert not {item[0] for item in training} & {item[0] for item in validation}
    assert sorted(training + validation) == sorted(item for item, _ in items)


def test_a_single_prompt_is_held_out_by_pairs_and_a_single_pair_not_at_all() -> None:
    training, validation, how = hold_out(
        [(f"a{i}", "train") for i in range(10)], prompt=first_letter, share=0.1, limit=256
    )
    assert (len(training), len(validation), how) == (9, 1, "pair")
    assert hold_out([("a1", "train")], prompt=first_letter, share=0.1, limit=256) == (["a1"], ["a1"], "nothing")


def test_what_is_held_out_does_not_depend_on_the_order_of_the_data() -> None:
    items = [(f"{prompt}{index}", "train") for prompt in "abcdefghij" for index in range(2)]
    _, held_out, _ = hold_out(items, prompt=first_letter, share=0.3, limit=256)
    for moved in (items[::-1], items[7:] + items[:7]):
        assert sorted(hold_out(moved, prompt=first_letter, share=0.3, limit=256)[1]) == sorted(held_out)
    assert sorted(held_out) != [item for item, _ in items[:6]]


def test_a_prompt_at_least_stays_to_train_on() -> None:
    training, held_out, _ = hold_out([("a1", "train"), ("b1", "train")], prompt=first_letter, share=1.0, limit=256)
    assert (len(training), len(held_out)) == (1, 1)


def prompt_of(item: str) -> str:
    return item.partition("|")[0]


def images_of(item: str) -> list[str]:
    return item.split("|")[1:]


def held_out_of(items: list[str], share: float) -> tuple[set[str], set[str], str]:
    training, validation, how = hold_out(
        [(item, "train") for item in items], prompt=prompt_of, images=images_of, share=share, limit=1000
    )
    assert sorted(training + validation) == sorted(items)
    return set(training), set(validation), how


@pytest.mark.parametrize("other", ["A Fox", "a  fox", "\uff41 fox", "a\u200b fox", "A FOX"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_same_prompt_in_another_form_stays_on_its_side(other: str, share: float) -> None:
    for number in range(12):
        items = [f"a fox{number}|1", f"{other}{number}|2", *(f"prompt {index}|{index}" for index in range(10, 16))]
        sides = held_out_of(items, share)[:2]
        assert any({items[0], items[1]} <= side for side in sides)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pairs_that_share_an_image_stay_on_one_side_also_through_others(share: float) -> None:
    items = ["a|1|2", "b|2|3", "c|3|4", *(f"{name}|{name}1|{name}2" for name in "defghij")]
    training, validation, how = held_out_of(items, share)
    assert how == "prompt"
    assert any(set(items[:3]) <= side for side in (training, validation))
    shown = [{image for item in side for image in images_of(item)} for side in (training, validation)]
    assert shown[0].isdisjoint(shown[1])


def test_what_most_pairs_are_connected_to_is_trained_on() -> None:
    items = [*(f"prompt {index}|{index}|same" for index in range(9)), "x|x1", "y|y1"]
    training, validation, _ = held_out_of(items, 0.9)
    assert set(items[:9]) <= training
    assert validation <= {"x|x1", "y|y1"}
    assert validation


def test_where_all_pairs_share_an_image_prompts_are_held_out_and_it_is_told() -> None:
    items = [f"prompt {index}|{index}|same" for index in range(10)]
    training, validation, how = held_out_of(items, 0.2)
    assert (len(training), len(validation), how) == (8, 2, "images shared")


def test_with_one_prompt_the_same_image_is_on_one_side() -> None:
    training, validation, how = held_out_of([f"a|{index // 2}|r{index}" for index in range(10)], 0.4)
    assert how == "pair"
    assert {item.split("|")[1] for item in training}.isdisjoint(item.split("|")[1] for item in validation)


def test_prompts_and_images_of_their_own_are_held_out_as_ever() -> None:
    """So that a dataset without repetitions has the split that it had in 0.1."""
    items = [f"prompt {index}|{index}" for index in range(20)]
    by_hash = sorted(items, key=lambda item: hashlib.sha256(prompt_of(item).encode()).digest())
    assert held_out_of(items, 0.2)[1] == set(by_hash[:4])


def test_no_more_is_held_out_than_is_measured() -> None:
    items = [(f"{prompt:03}-{index}", "train") for prompt in range(100) for index in range(3)]
    training, held_out, how = hold_out(items, prompt=lambda item: item[:3], share=0.2, limit=20)
    assert (len(training), len(held_out), how) == (300 - 18, 18, "prompt")
    assert not {item[:3] for item in training} & {item[:3] for item in held_out}
    assert sorted(training + held_out) == sorted(item for item, _ in items)
    _, fewer, _ = hold_out(items, prompt=lambda item: item[:3], share=0.05, limit=20)
    assert len(fewer) == 15


def test_prompts_with_more_pairs_than_are_measured_are_passed_over_for_smaller_ones() -> None:
    sizes = {"a": 9, "b": 9, "c": 9, "d": 2}
    items = [(f"{prompt}{index}", "train") for prompt, size in sizes.items() for index in range(size)]
    _, held_out, _ = hold_out(items, prompt=first_letter, share=0.5, limit=4)
    assert held_out == ["d0", "d1"]
    _, held_out, _ = hold_out(items, prompt=first_letter, share=0.5, limit=1)
    assert held_out == ["d0", "d1"]  # a prompt is never in both parts


def test_pairs_of_a_single_prompt_are_held_out_up_to_what_is_measured() -> None:
    training, held_out, how = hold_out(
        [(f"a{i}", "train") for i in range(100)], prompt=first_letter, share=0.5, limit=7
    )
    assert (len(training), len(held_out), how) == (93, 7, "pair")
