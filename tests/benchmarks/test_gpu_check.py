"""What the check of a machine's GPU concludes from what its programs report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_check.programs import Trained
from benchmarks.gpu_check.report import Check, Outcome, exit_code, page
from benchmarks.gpu_check.sections import (
    Limits,
    Setting,
    changed_plan,
    jobs,
    on_other_gpus,
    over_limit,
    relative_differences,
    verdict,
)
from benchmarks.gpu_check.steps import busy
from trainer.spec.events import Failed, MemoryPlanned, Warned

pytestmark = [pytest.mark.unit, pytest.mark.slow]

GIB = 2**30
PLAN = MemoryPlanned(effective_batch_size=8, batch_size=4, gradient_checkpointing=True, streamed=False, measured=True)


def check(outcome: Outcome) -> Check:
    return Check("Memory", "a card of 24 GB", "a job ends well", outcome, {"reserved_gib": 20.0}, "because")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["pass", "not run"], 0),
        (["pass", "fail", "pass"], 1),
        (["not run", "not run"], 1),
        ([], 1),
    ],
)
def test_a_broken_promise_makes_the_exit_code_1_and_so_does_a_check_of_nothing(
    outcomes: list[Outcome], code: int
) -> None:
    assert exit_code([check(outcome) for outcome in outcomes]) == code


def test_the_page_says_of_each_check_what_came_out_and_why() -> None:
    text = page({"name": "a GPU"}, [check("fail"), check("not run")])
    assert "0 passed, 1 failed, 1 not run." in text
    assert "| a card of 24 GB | **fail** | a job ends well | reserved gib 20 | because |" in text
    assert "| name | a GPU |" in text


def test_a_run_that_was_stopped_at_its_deadline_breaks_no_promise() -> None:
    late = verdict("Memory", "one", "ends well", Trained(returncode=None, seconds=60.0))
    assert (late.outcome, late.why) == ("not run", "stopped after 60 s: the time for this section was over")


def test_a_run_that_fails_breaks_its_promise_with_the_trainers_own_message() -> None:
    failed = Trained(returncode=1, events=[(0.0, Failed(code="out_of_memory", message="Out of GPU memory"))])
    found = verdict("Memory", "one", "ends well", failed)
    assert (found.outcome, found.why) == ("fail", "out_of_memory: Out of GPU memory")


def test_a_plan_that_did_not_last_breaks_the_promise() -> None:
    changed = Trained(returncode=0, events=[(0.0, Warned(code="memory_plan_changed", message="memory ran out"))])
    assert verdict("Memory", "one", "ends well", changed, changed_plan(changed)).outcome == "fail"
    assert verdict("Memory", "one", "ends well", Trained(returncode=0), changed_plan(Trained())).outcome == "pass"


def test_the_peak_that_counts_is_the_one_after_the_probe() -> None:
    """The probe fills the device on purpose."""
    peaks = [
        [
            {"time": 1.0, "device": 0, "reserved": 24 * GIB, "allocated": 23 * GIB},
            {"time": 3.0, "device": 0, "reserved": 20 * GIB, "allocated": 19 * GIB},
        ]
    ]
    trained = Trained(returncode=0, events=[(2.0, PLAN)], peaks=peaks)
    found = trained.measured()
    assert (found["reserved_gib"], found["allocated_gib"]) == (20.0, 19.0)
    assert found["plan"] == "4 of 8 pairs, gradient_checkpointing"
    assert over_limit(trained, 24, Limits()) == ""
    assert over_limit(trained, 24, Limits(reserved=0.8)) == "reserved 20.0 GiB of 24"
    assert over_limit(Trained(returncode=0), 24, Limits()) == "reserved inf GiB of 24"


def test_kernels_of_several_streams_are_busy_once() -> None:
    assert busy([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0


def test_losses_are_compared_step_by_step() -> None:
    assert relative_differences([1.0, 2.0], [1.0, 2.02]) == pytest.approx([0.0, 0.01])
    assert relative_differences([1.0, 2.0], [1.0]) == [math.inf]


def test_a_process_on_anothers_gpu_is_noticed() -> None:
    def peak(device: int, reserved: int) -> dict[str, Any]:
        return {"device": device, "reserved": reserved}

    first, second = [peak(0, GIB), peak(1, 0)], [peak(0, 0), peak(1, GIB)]
    assert on_other_gpus([first, second]) == ""
    assert on_other_gpus([first, [*second, peak(0, 1)]]) == "process 1 had memory on the GPUs [0, 1]"
    assert on_other_gpus([first]) == "1 of two processes reported their memory"


def setting(folder: Path, **facts: Any) -> Setting:
    about = {"device": "cpu", "cannot": {}, "default_precision": "float32"} | facts
    return Setting(folder, about, Limits(), tiny=True, steps=4)


def test_what_the_trainer_refuses_here_is_not_run(tmp_path: Path) -> None:
    found = list(jobs(setting(tmp_path, cannot={"nf4": "it needs a CUDA GPU"}), "P", "", {"nf4": ("sdxl", {})}))
    assert [(one.outcome, one.why) for one in found] == [("not run", "it needs a CUDA GPU")]
