"""The cache of thumbnails is bounded by bytes, and keeps what was read last."""

from __future__ import annotations

import pytest

from api.caches.thumbnails import Thumbnails

pytestmark = pytest.mark.unit


def test_what_was_read_least_recently_goes_first() -> None:
    cache = Thumbnails(limit_bytes=10)
    cache.save("a", 64, b"12345")
    cache.save("b", 64, b"12345")
    assert cache.get("a", 64) == b"12345"
    cache.save("c", 64, b"1")
    assert [cache.get(name, 64) for name in "abc"] == [b"12345", None, b"1"]


def test_a_side_is_a_thumbnail_of_its_own_and_a_repetition_counts_once() -> None:
    cache = Thumbnails(limit_bytes=10)
    for _ in range(3):
        cache.save("a", 64, b"12345")
    cache.save("a", 128, b"67890")
    assert (cache.get("a", 64), cache.get("a", 128)) == (b"12345", b"67890")


def test_one_that_is_larger_than_the_cache_is_not_kept() -> None:
    cache = Thumbnails(limit_bytes=10)
    cache.save("a", 64, b"1" * 11)
    assert cache.get("a", 64) is None
    cache.save("b", 64, b"1" * 10)
    assert cache.get("b", 64) is not None
