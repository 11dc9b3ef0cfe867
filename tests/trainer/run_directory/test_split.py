from __future__ import annotations

import pytest

from trainer.run_directory.split import hold_out

pytestmark = pytest.mark.unit


def first_letter(item: str) -> str:
    return item[0]


def test_marked_pairs_are_taken_as_marked() -> None:
    items = [("a1", "train"), ("b1", "validation"), ("a2", "train")]
    assert hold_out(items, prompt=first_letter, share=0.5) == (["a1", "a2"], ["b1"], "data")


def test_unmarked_pairs_are_held_out_by_whole_prompts() -> None:
    items = [(f"{prompt}{index}", "train") for prompt in "abcdefghij" for index in range(3)]
    training, validation, how = hold_out(items, prompt=first_letter, share=0.2)
    assert how == "prompt"
    assert len(validation) == 6
    assert not {item[0] for item in training} & {item[0] for item in validation}
    assert sorted(training + validation) == sorted(item for item, _ in items)


def test_a_single_prompt_is_held_out_by_pairs_and_a_single_pair_not_at_all() -> None:
    training, validation, how = hold_out([(f"a{i}", "train") for i in range(10)], prompt=first_letter, share=0.1)
    assert (len(training), len(validation), how) == (9, 1, "pair")
    assert hold_out([("a1", "train")], prompt=first_letter, share=0.1) == (["a1"], ["a1"], "nothing")


def test_what_is_held_out_does_not_depend_on_the_order_of_the_data() -> None:
    items = [(f"{prompt}{index}", "train") for prompt in "abcdefghij" for index in range(2)]
    _, held_out, _ = hold_out(items, prompt=first_letter, share=0.3)
    for moved in (items[::-1], items[7:] + items[:7]):
        assert sorted(hold_out(moved, prompt=first_letter, share=0.3)[1]) == sorted(held_out)
    assert sorted(held_out) != [item for item, _ in items[:6]]


def test_a_prompt_at_least_stays_to_train_on() -> None:
    training, held_out, _ = hold_out([("a1", "train"), ("b1", "train")], prompt=first_letter, share=1.0)
    assert (len(training), len(held_out)) == (1, 1)
