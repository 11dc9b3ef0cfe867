"""What the lines of training say of the two sides of a pair."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.run_directory.metrics_log import MetricsLog
from trainer.spec.events import Event, Progress
from trainer.training.progress import ProgressReporter
from trainer.training.step import StepRecord

pytestmark = pytest.mark.unit

OBJECTIVE, CHOSEN, REJECTED = [0.5, 0.7], [0.1, 0.3], [0.6, 1.0]  # of two pairs


def reported(path: Path, *losses: list[float]) -> tuple[Progress, dict[str, float]]:
    """The event and the row of one step with these losses."""
    events: list[Event] = []
    history = MetricsLog(path)
    line = ProgressReporter(events.append, history, torch.device("cpu"), max_steps=1, every=1)
    line.add(StepRecord(1, ("a", "b"), torch.tensor(losses), torch.tensor(2.0), 1e-3))
    line.flush(0)
    [event], [row] = events, history.rows()
    assert isinstance(event, Progress)
    return event, row


def test_each_side_has_its_own_loss_and_a_growing_margin_is_good(tmp_path: Path) -> None:
    event, row = reported(tmp_path / "metrics.jsonl", OBJECTIVE, CHOSEN, REJECTED)
    assert (event.loss, event.chosen_loss, event.rejected_loss) == pytest.approx((0.6, 0.2, 0.8))
    assert event.margin == pytest.approx(0.8 - 0.2)
    assert (row["loss"], row["chosen_loss"], row["rejected_loss"]) == pytest.approx((0.6, 0.2, 0.8))


def test_a_method_of_chosen_images_has_neither_rejected_loss_nor_margin(tmp_path: Path) -> None:
    event, row = reported(tmp_path / "metrics.jsonl", OBJECTIVE, CHOSEN)
    assert event.chosen_loss == pytest.approx(0.2)
    assert (event.rejected_loss, event.margin) == (None, None)
    assert "rejected_loss" not in row
