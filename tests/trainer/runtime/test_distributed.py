"""What each of several processes takes on."""

from __future__ import annotations

import pytest

from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_shares_of_all_processes_are_everything_once(size: int) -> None:
    items = list(range(7))
    shares = [ProcessGroup(rank, size).shard(items) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_one_alone_takes_everything_and_waits_for_nobody() -> None:
    assert list(SINGLE_PROCESS.shard("abc")) == ["a", "b", "c"]
    assert SINGLE_PROCESS.all_gather(3) == [3]
    assert (SINGLE_PROCESS.any(True), SINGLE_PROCESS.any(False), SINGLE_PROCESS.is_main) == (True, False, True)
    assert SINGLE_PROCESS.main_first(lambda: "done") == "done"
    assert not ProcessGroup(1, 2).is_main
