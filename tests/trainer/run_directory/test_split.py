from __future__ import annotations

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
