"""What each of several processes takes on."""

from __future__ import annotations

import pytest

from trainer.runtime.distributed import ALONE, World

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_shares_of_all_processes_are_everything_once(size: int) -> None:
    items = list(range(7))
    shares = [World(rank, size).share(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_one_alone_takes_everything_and_waits_for_nobody() -> None:
    assert list(ALONE.share("abc")) == ["a", "b", "c"]
    assert ALONE.gather(3) == [3]
    assert (ALONE.any(True), ALONE.any(False), ALONE.is_main) == (True, False, True)
    assert ALONE.main_first(lambda: "done") == "done"
    assert not World(1, 2).is_main
