"""The garbage collector leaves alone what stays for the whole process."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.warm import ROOT
from trainer.runtime.garbage import lasting_objects

pytestmark = pytest.mark.unit

AT_THE_END = """
import atexit, gc, runpy, sys
atexit.register(lambda: print("left:", gc.get_freeze_count() > 0, file=sys.stderr))
sys.argv = ["trainer", "run", sys.argv[1]]
runpy.run_module("trainer", run_name="__main__")
"""


def test_nothing_is_collected_inside_and_nothing_of_it_is_walked_afterwards() -> None:
    before = gc.get_freeze_count()
    try:
        with lasting_objects():
            assert not gc.isenabled()
            lasting = [[] for _ in range(1000)]  # type: list[list[int]]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(lasting)
    finally:
        gc.unfreeze()


def test_after_an_import_that_failed_the_collector_is_on_again() -> None:
    try:
        with pytest.raises(ImportError), lasting_objects():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_at_its_end_the_program_leaves_everything_to_the_system(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_THE_END, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert "left: True" in ended.stderr
