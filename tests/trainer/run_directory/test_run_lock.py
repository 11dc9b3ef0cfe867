from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.program import ignore, train
from trainer.run_directory.run_lock import lock_run_directory
from trainer.runtime.errors import BadRun, RunInUse
from trainer.runtime.signals import StopRequest

pytestmark = pytest.mark.unit

HOLD = """
import sys
from pathlib import Path
from trainer.run_directory.run_lock import lock_run_directory
with lock_run_directory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_in_a_directory_is_refused_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(RunInUse, match=str(tmp_path)), lock_run_directory(tmp_path):
            pass
        first.communicate()
    with lock_run_directory(tmp_path):
        pass


def test_another_directory_is_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with lock_run_directory(tmp_path / "a"), lock_run_directory(tmp_path / "b"):
        pass


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with lock_run_directory(tmp_path):
        pass


def test_a_run_that_failed_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), lock_run_directory(tmp_path):
        raise ValueError("stop")
    with lock_run_directory(tmp_path):
        pass


def test_a_blocked_write_within_a_run_is_not_taken_for_a_run_in_use(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), lock_run_directory(tmp_path):
        raise BlockingIOError


def test_the_program_trains_in_no_directory_where_another_does(tmp_path: Path) -> None:
    """Else it would read the directory, and say that it is empty."""
    with holder(tmp_path) as first:
        with pytest.raises(RunInUse, match=str(tmp_path)):
            train(tmp_path, tmp_path / "cache", None, ignore, StopRequest())
        first.communicate()
    with pytest.raises(BadRun, match=r"spec\.json"):
        train(tmp_path, tmp_path / "cache", None, ignore, StopRequest())
