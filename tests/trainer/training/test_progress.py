"""Progress lines: means over all pairs and steps since the last one, and how long the rest takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.run_directory.metrics_log import MetricsLog
from trainer.runtime.errors import NonFiniteLoss
from trainer.spec.events import Event, Progress
from trainer.training.progress import ProgressReporter
from trainer.training.step import StepRecord

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def record(step: int, losses: list[list[float]], grad_norm: float = 1.0) -> StepRecord:
    pairs = tuple(f"{step}-{index}" for index in range(len(losses[0])))
    return StepRecord(step, pairs, torch.tensor(losses), torch.tensor(grad_norm), 0.5 / step)


def new_line(folder: Path, events: list[Event], max_steps: int = 10, every: int = 5) -> ProgressReporter:
    metrics_log = MetricsLog(folder / "metrics.jsonl")
    metrics_log.restore(b"")
    line = ProgressReporter(events.append, metrics_log, CPU, max_steps, every)
    line.restart()  # by the test's clock
    return line


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_reports_the_means_of_its_steps_and_each_step_has_a_row(tmp_path: Path, clock: Clock) -> None:
    events: list[Event] = []
    line = new_line(tmp_path, events)
    line.add(record(1, [[1.0, 3.0], [0.25, 0.75], [0.5, 1.5]], grad_norm=2.0))
    line.add(record(2, [[4.0], [1.5], [2.0]], grad_norm=4.0))
    clock.now += 6
    line.flush(last_good_step=0)
    (seen,) = events
    assert isinstance(seen, Progress)
    assert (seen.step, seen.max_steps, seen.learning_rate) == (2, 10, 0.25)
    assert (seen.loss, seen.chosen_loss, seen.rejected_loss, seen.grad_norm) == (3.0, 1.0, 1.5, 3.0)
    assert seen.margin == 0.5  # rejected less chosen: one that grows is good
    assert seen.pairs_per_second == pytest.approx(0.5)
    assert [(row["step"], row["loss"], row["chosen_loss"], row["rejected_loss"]) for row in rows(tmp_path)] == [
        (1, 2.0, 0.5, 1.0),
        (2, 4.0, 1.5, 2.0),
    ]
    assert [(row["grad_norm"], row["learning_rate"]) for row in rows(tmp_path)] == [(2.0, 0.5), (4.0, 0.25)]


def test_steps_on_chosen_images_alone_have_no_rejected_loss(tmp_path: Path, clock: Clock) -> None:
    events: list[Event] = []
    line = new_line(tmp_path, events)
    line.add(record(1, [[1.0], [0.5]]))
    clock.now += 1
    line.flush(last_good_step=0)
    (seen,) = events
    assert isinstance(seen, Progress)
    assert (seen.rejected_loss, seen.margin) == (None, None)
    assert "rejected_loss" not in rows(tmp_path)[0]


def test_what_remains_is_estimated_from_the_speed_of_steps_and_of_evaluations(tmp_path: Path, clock: Clock) -> None:
    events: list[Event] = []
    line = new_line(tmp_path, events, max_steps=20, every=5)
    for step in range(1, 6):
        line.add(record(step, [[1.0], [0.5]]))
    clock.now += 10  # 2 a step
    line.flush(last_good_step=0)
    clock.now += 3  # an evaluation
    line.restart()
    line.add(record(6, [[1.0], [0.5]]))
    clock.now += 2
    line.flush(last_good_step=5)
    clock.now += 5  # another one
    line.restart()
    line.add(record(7, [[1.0], [0.5]]))
    clock.now += 2
    line.flush(last_good_step=5)
    first, second, third = (event for event in events if isinstance(event, Progress))
    assert first.eta_seconds == pytest.approx(15 * 2)  # no evaluation was timed yet
    assert second.eta_seconds == pytest.approx(14 * 2 + 3 * 3)
    assert third.eta_seconds == pytest.approx(13 * 2 + 3 * 4)  # both took 4 in the mean


def test_time_between_flush_and_restart_is_not_the_steps(tmp_path: Path, clock: Clock) -> None:
    events: list[Event] = []
    line = new_line(tmp_path, events)
    for step in (1, 2):
        line.add(record(step, [[1.0], [0.5]]))
        clock.now += 2
        line.flush(last_good_step=0)
        clock.now += 50
        line.restart()
    speeds = [event.pairs_per_second for event in events if isinstance(event, Progress)]
    assert speeds == pytest.approx([0.5, 0.5])


def test_a_line_is_due_once_a_second(tmp_path: Path, clock: Clock) -> None:
    line = new_line(tmp_path, [])
    clock.now += 0.9
    assert not line.due()
    clock.now += 0.2
    assert line.due()


def test_no_line_is_reported_of_no_step(tmp_path: Path, clock: Clock) -> None:
    events: list[Event] = []
    line = new_line(tmp_path, events)
    clock.now += 5
    line.flush(last_good_step=0)
    assert events == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pair_or_a_gradient_without_a_finite_value_stops_the_run_and_is_named(tmp_path: Path, value: float) -> None:
    events: list[Event] = []
    line = new_line(tmp_path, events)
    line.add(record(3, [[1.0, value], [0.5, 0.5]]))
    with pytest.raises(NonFiniteLoss) as of_a_pair:
        line.flush(last_good_step=2)
    assert (of_a_pair.value.step, of_a_pair.value.pairs) == (3, ("3-1",))
    line = new_line(tmp_path, events)
    line.add(record(3, [[1.0, 1.0], [0.5, 0.5]], grad_norm=value))
    with pytest.raises(NonFiniteLoss) as of_a_gradient:
        line.flush(last_good_step=2)
    assert tuple(of_a_gradient.value.pairs) == ("3-0", "3-1")
    assert events == []
