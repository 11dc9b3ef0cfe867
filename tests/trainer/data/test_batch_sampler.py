from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from trainer.data.batch_sampler import BatchSampler

pytestmark = pytest.mark.unit


def order(seed: int = 0, items: int = 23) -> BatchSampler[int]:
    shapes = ["wide" if item % 3 == 0 else "square" for item in range(items)]
    return BatchSampler(range(items), shapes, seed=seed, batch_size=2, effective_batch_size=4)


def test_every_item_comes_exactly_once_an_epoch_incomplete_steps_included() -> None:
    of_23 = order()
    assert of_23.steps_per_epoch == 6
    for first in (1, 7, 13):
        steps = list(islice(of_23.steps(first), 6))
        assert Counter(item for step in steps for batch in step for item in batch) == Counter(range(23))
        assert sorted(sum(map(len, step)) for step in steps) == [3, 4, 4, 4, 4, 4]


def test_a_batch_has_one_shape_and_at_most_its_size() -> None:
    for step in islice(order().steps(1), 18):
        for batch in step:
            assert len(batch) <= 2
            assert len({item % 3 == 0 for item in batch}) == 1


def test_the_order_from_any_step_is_the_rest_of_the_order_from_the_first() -> None:
    whole = list(islice(order().steps(1), 20))
    assert all(list(islice(order().steps(first), 21 - first)) == whole[first - 1 :] for first in (2, 6, 7, 15))


def test_epochs_and_seeds_differ() -> None:
    first, second = list(islice(order().steps(1), 6)), list(islice(order().steps(7), 6))
    assert first != second
    assert first != list(islice(order(seed=1).steps(1), 6))


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 7, 20])
def test_the_visited_items_are_those_of_the_steps(steps: int) -> None:
    taken = {item for step in islice(order().steps(1), steps) for batch in step for item in batch}
    assert order().visited(steps) == sorted(taken)
