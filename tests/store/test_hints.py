"""Hints in a real broker, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.hints import Hints

pytestmark = pytest.mark.integration


def test_each_hint_waits_in_the_queue_of_its_worker(broker_url: str) -> None:
    hints = Hints(broker_url)
    assert hints.reachable() is True
    assert hints.read_file("file-1")
    assert hints.train("ftjob-1")
    assert hints.train("ftjob-2", memory_gib=20)
    assert hints.generate("imggen-1")
    queues = ("intake", "train", "train-24g", "draw", "train-8g")
    assert {queue: hints.waiting(queue) for queue in queues} == {
        "intake": 1,
        "train": 1,
        "train-24g": 1,
        "draw": 1,
        "train-8g": 0,
    }


def test_a_broker_that_is_away_is_said_to_be_and_raises_nothing(tmp_path: Path) -> None:
    hints = Hints(f"redis+socket://{tmp_path}/nothing")
    assert hints.reachable() is False
    assert not hints.train("ftjob-1")
