"""The short form of ``make chaos``: every kind of fault once, on a whole deployment at work."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.faults.chaos import run

pytestmark = [pytest.mark.integration, pytest.mark.serial, pytest.mark.timeout(540)]
SEED = 21
SECONDS, EVERY = 42.0, 2.3


def test_whatever_breaks_every_accepted_job_ends_once_and_whole() -> None:
    with tempfile.TemporaryDirectory(prefix="pt-") as home:
        found = run(SEED, seconds=SECONDS, every=EVERY, home=Path(home))
    print(found.table())
    assert found.violations == []
    assert found.ended["succeeded"] > 0
    assert found.injected.total() > found.missed.total()
