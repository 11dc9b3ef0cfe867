"""The check of a machine's GPU as it runs, on a CPU with tiny networks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.gpu_check.__main__ import TINY_LIMITS, main
from benchmarks.gpu_check.programs import run_module, run_trainer
from benchmarks.gpu_check.run_folders import base_of, write_pairs, write_run
from benchmarks.gpu_check.sections import Limits, verdict

pytestmark = pytest.mark.integration


def test_a_program_is_stopped_at_its_deadline() -> None:
    started = time.monotonic()
    finished = run_module("http.server", "0", deadline=started + 1)
    assert finished.late
    assert time.monotonic() - started < 30


def test_the_trainers_own_failure_is_reported(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 32)
    directory = write_run(tmp_path / "run", tmp_path / "pairs", base_of("sdxl", tmp_path / "none"), 4, {})
    found = run_trainer(directory, tmp_path / "cache", deadline=time.monotonic() + 120)
    one = verdict("Memory", "one", "ends well", found)
    assert one.outcome == "fail"
    assert one.why.startswith("base_not_found: ")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_check_on_a_cpu_with_one_limit_that_nothing_keeps(tmp_path: Path) -> None:
    chosen = "memory,step,resume,export,generation,errors,gpus"
    arguments = ["--tiny", "--folder", str(tmp_path), "--only", chosen]
    assert TINY_LIMITS.step_by_bare > 1
    assert main(arguments, Limits(step_by_bare=0.01)) == 1
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    outcomes = {(one["section"], one["name"]): one["outcome"] for one in report["checks"]}
    assert [name for name, outcome in outcomes.items() if outcome == "fail"] == [("Step", "time of a step")]
    assert {name for name, outcome in outcomes.items() if outcome == "pass"} == {
        ("Bases", "sdxl"),
        ("Memory", "the whole device"),
        ("Resume", "a stopped run goes on"),
        ("Export", "files of the default job"),
        ("Generation", "an image from the exported adapter"),
        ("Device errors", "host"),
    }
    resumed = next(one["measured"] for one in report["checks"] if one["section"] == "Resume")
    assert resumed["adapter_equal_to_the_bit"] is True
    assert all(one["why"] for one in report["checks"] if one["outcome"] == "not run")
    assert {"commit", "driver", "versions", "name", "seconds"} <= report.keys()
    assert "**fail**" in (tmp_path / "gpu-check.md").read_text()
    assert not (tmp_path / "work").exists()
