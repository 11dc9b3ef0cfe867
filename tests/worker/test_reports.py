from __future__ import annotations

from pathlib import Path

import pytest

from store.leases import Claim
from trainer.spec.events import CheckpointWritten, Done, Metrics, Phase, Progress, Warned
from worker import reports
from worker.attempt import Attempt
from worker.conclusion import describe_exit
from worker.trainer_output import SHOWN_LINES, last_lines

pytestmark = pytest.mark.unit


def progress(step: int, max_steps: int) -> Progress:
    return Progress(
        step=step,
        max_steps=max_steps,
        loss=0.5,
        chosen_loss=0.1,
        rejected_loss=0.3,
        margin=0.2,
        grad_norm=1.0,
        learning_rate=1e-4,
        pairs_per_second=8.0,
        eta_seconds=12.4,
        peak_memory_bytes=1024,
    )


METRICS = Metrics(
    step=3,
    objective=0.7,
    chosen_loss=0.1,
    rejected_loss=0.2,
    margin=0.1,
    implicit_accuracy=0.75,
    implicit_accuracy_low=0.5,
    implicit_accuracy_high=0.9,
    base_implicit_accuracy=0.25,
    base_chosen_loss=0.3,
    base_rejected_loss=0.2,
    reference_corrected_accuracy=1.0,
    pairs=4,
    draws=2,
)


def test_progress_and_metrics_carry_the_names_of_openais_clients() -> None:
    told = reports.to_job_event(progress(5, 10))
    assert told is not None
    assert told.message == "Step 5/10: loss 0.5000, margin +0.2000, 8.0 pairs/s, 12 s left."
    assert (told.type, (told.data or {})["train_loss"], (told.data or {})["total_steps"]) == ("metrics", 0.5, 10)
    measured = reports.to_job_event(METRICS)
    assert measured is not None
    assert (measured.data or {})["full_valid_loss"] == 0.7
    assert "implicit accuracy 0.75 (base 0.25)" in measured.message


def test_a_warning_is_told_as_one_and_what_becomes_a_row_is_not_told_twice() -> None:
    warned = reports.to_job_event(Warned(code="weak", message="Look."))
    assert warned is not None
    assert (warned.level, warned.data) == ("warn", {"code": "weak"})
    phase = reports.to_job_event(Phase(phase="training", previous="caching", seconds=1.0))
    assert phase is not None
    assert phase.message == "Training."
    assert reports.to_job_event(CheckpointWritten(step=1, path="p")) is None
    assert reports.to_job_event(Done(best_step=1, files={})) is None


@pytest.mark.parametrize("every", [1, 3, 7, 13])
def test_a_long_runs_progress_is_thinned_evenly_whatever_steps_are_told(every: int) -> None:
    steps = [*range(every, 2000, every), 2000]
    points = [reports.point_of(progress(step, 2000)) for step in steps]
    assert len(set(points)) >= min(len(steps), reports.POINTS) * 0.7
    assert len(set(points)) <= reports.POINTS + 2
    assert points == sorted(points)
    assert points[-1] != points[-2]


def test_a_short_runs_progress_is_kept_whole() -> None:
    assert len({reports.point_of(progress(step, 150)) for step in range(1, 151)}) == 150


def test_an_attempt_tells_one_progress_line_a_point() -> None:
    attempt = Attempt(Claim("job", "project", 1), Path())
    attempt.hear([progress(step, 2000) for step in range(1, 2001)])
    assert len(attempt._news) == reports.POINTS + 1


@pytest.mark.parametrize(
    ("code", "text"), [(1, "exit code 1"), (-15, "signal SIGTERM"), (-9, "signal SIGKILL, as when memory ran out")]
)
def test_an_exit_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_the_last_lines_of_a_log_hold_nothing_that_a_database_refuses(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(f"line {index}\n".encode() for index in range(5000)) + b"\xff\0end\n")
    lines = last_lines(log).splitlines()
    assert len(lines) == SHOWN_LINES
    assert lines[-2:] == ["line 4999", "�end"]
