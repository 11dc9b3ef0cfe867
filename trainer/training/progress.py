"""Report progress: step records are collected on the device and read about once a second."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch

from trainer.run_directory.metrics_log import MetricsLog, MetricsRow
from trainer.runtime.device import peak_memory
from trainer.runtime.errors import NonFiniteLoss
from trainer.runtime.event_stream import Report
from trainer.spec.events import Progress
from trainer.training.step import StepRecord

EVERY_SECONDS = 1.0
SIDES = ("chosen_loss", "rejected_loss")


@dataclass
class ProgressReporter:
    """Losses of all steps since the last line.

    Time between ``flush`` and ``restart`` does not count for the speed. The time of an evaluation, due after every
    ``every`` steps and after the last, counts for the remaining time.
    """

    report: Report
    metrics_log: MetricsLog
    device: torch.device
    max_steps: int
    every: int
    _records: list[StepRecord] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)
    _steps: int = 0
    _seconds: float = 0.0
    _evaluations: int = 0
    _evaluation_seconds: float = 0.0

    def add(self, record: StepRecord) -> None:
        self._records.append(record)

    def due(self) -> bool:
        return time.monotonic() - self._since >= EVERY_SECONDS

    def restart(self, *, after_evaluation: bool = True) -> None:
        """Continue after an evaluation, or after an interruption at no fixed step, which no estimate includes."""
        now = time.monotonic()
        if self._steps and after_evaluation:
            self._evaluations += 1
            self._evaluation_seconds += now - self._since
        self._since = now

    def flush(self, last_good_step: int) -> None:
        """Wait for the device, log every step, report their means. Raises NonFiniteLoss."""
        if not self._records:
            return
        rows, pairs = _read(self._records, last_good_step)
        seconds = time.monotonic() - self._since
        self._steps += len(rows)
        self._seconds += seconds
        self.metrics_log.append(rows)
        last = self._records[-1]
        chosen, loss, grad_norm = (_mean(rows, name) for name in ("chosen_loss", "loss", "grad_norm"))
        rejected = _mean(rows, "rejected_loss") if "rejected_loss" in rows[0] else None
        self.report(
            Progress(
                step=last.step,
                max_steps=self.max_steps,
                loss=loss,
                chosen_loss=chosen,
                rejected_loss=rejected,
                margin=None if rejected is None else rejected - chosen,
                grad_norm=grad_norm,
                learning_rate=last.learning_rate,
                pairs_per_second=pairs / max(seconds, 1e-9),
                eta_seconds=self._remaining(last.step),
                peak_memory_bytes=peak_memory(self.device),
            )
        )
        self._records.clear()
        self._since = time.monotonic()

    def _remaining(self, step: int) -> float:
        evaluations = math.ceil(self.max_steps / self.every) - step // self.every
        return (self.max_steps - step) * self._seconds / self._steps + evaluations * self._evaluation_seconds / max(
            1, self._evaluations
        )


def _read(records: list[StepRecord], last_good_step: int) -> tuple[list[MetricsRow], int]:
    """The records as rows, and how many pairs they saw; one transfer from the device for all of them."""
    norms = torch.stack([record.grad_norm for record in records])
    values = torch.cat([record.losses.flatten() for record in records] + [norms]).tolist()
    rows: list[MetricsRow] = []
    position = 0
    for record, grad_norm in zip(records, values[-len(records) :], strict=True):
        pairs, kinds = len(record.pairs), len(record.losses)
        losses, *sides = (values[position + k * pairs : position + (k + 1) * pairs] for k in range(kinds))
        position += kinds * pairs
        bad = [name for name, loss in zip(record.pairs, losses, strict=True) if not math.isfinite(loss)]
        if bad or not math.isfinite(grad_norm):
            raise NonFiniteLoss(record.step, bad or record.pairs, last_good_step, gradient_alone=not bad)
        rows.append(
            {"kind": "train", "step": record.step, "loss": sum(losses) / pairs}
            | {name: sum(side) / pairs for name, side in zip(SIDES, sides, strict=False)}
            | {"grad_norm": grad_norm, "learning_rate": record.learning_rate}
        )
    return rows, sum(len(record.pairs) for record in records)


def _mean(rows: list[MetricsRow], name: str) -> float:
    return sum(float(row[name]) for row in rows) / len(rows)
