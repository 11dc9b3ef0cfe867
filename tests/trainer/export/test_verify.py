"""How far two adapters are apart, relative to the first, whatever the size of its weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainer.export.verify import Update, largest_difference

pytestmark = pytest.mark.unit


def update(size: float, *, magnitude: bool = False) -> Update:
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator)
    return Update(size * up, down, 0.5, torch.full((6,), size) if magnitude else None)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_difference_is_relative_to_the_update(size: float) -> None:
    one = update(size)
    other = replace(one, up=1.01 * one.up)
    assert largest_difference({"a": one}, {"a": other}) == pytest.approx(0.01, rel=1e-3)
    assert largest_difference({"a": one}, {"a": replace(one, up=2 * one.up, scale=0.25)}) < 1e-6


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_magnitudes_count_where_they_differ_more(size: float) -> None:
    one = update(size, magnitude=True)
    assert one.magnitude is not None
    other = replace(one, magnitude=1.02 * one.magnitude)
    assert largest_difference({"a": one}, {"a": other}) == pytest.approx(0.02, rel=1e-3)


def test_the_layer_that_differs_most_is_the_adapters_difference() -> None:
    one = update(1.0)
    others = {"a": replace(one, up=1.01 * one.up), "b": replace(one, up=1.05 * one.up), "c": one}
    assert largest_difference(dict.fromkeys("abc", one), others) == pytest.approx(0.05, rel=1e-3)


def test_adapters_of_other_layers_or_kinds_are_infinitely_apart() -> None:
    one = update(1.0)
    assert largest_difference({"a": one}, {"b": one}) == float("inf")
    assert largest_difference({"a": one}, {"a": update(1.0, magnitude=True)}) == float("inf")


def test_an_update_of_zeros_equals_only_itself() -> None:
    nothing = replace(update(1.0), scale=0.0)
    assert largest_difference({"a": nothing}, {"a": nothing}) == 0.0
    assert largest_difference({"a": nothing}, {"a": update(1.0)}) == float("inf")
