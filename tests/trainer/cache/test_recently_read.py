from __future__ import annotations

import pytest
import torch

from trainer.cache.recently_read import RecentlyRead

pytestmark = pytest.mark.unit


def entry(value: float) -> dict[str, torch.Tensor]:
    return {"mean": torch.tensor(value)}


def test_the_entry_used_longest_ago_goes_first() -> None:
    recent = RecentlyRead(30)
    for key in "abc":
        recent.put(key, entry(1), 10)
    assert recent.get("a") is not None
    recent.put("d", entry(1), 10)
    assert [key for key in "abcd" if recent.get(key) is not None] == ["a", "c", "d"]


def test_an_entry_larger_than_the_limit_is_not_cached() -> None:
    recent = RecentlyRead(30)
    recent.put("a", entry(1), 31)
    assert recent.get("a") is None
    recent.put("b", entry(1), 30)
    assert recent.get("b") is not None


def test_an_entry_put_twice_takes_its_space_once() -> None:
    recent = RecentlyRead(30)
    recent.put("other", entry(1), 10)
    for _ in range(5):
        recent.put("a", entry(1), 10)
    recent.put("b", entry(1), 10)
    assert recent.get("other") is not None


def test_a_dropped_entry_is_gone_and_its_space_free() -> None:
    recent = RecentlyRead(20)
    recent.put("a", entry(1), 10)
    recent.drop("a")
    recent.drop("never there")
    recent.put("b", entry(1), 10)
    recent.put("c", entry(1), 10)
    assert recent.get("a") is None
    assert recent.get("b") is not None
