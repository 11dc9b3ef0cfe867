"""A job's metrics as series over its steps: what a chart or a spreadsheet takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api.fine_tuning import examples
from store.jobs import events, jobs

TRAINING = ("step", "loss", "chosen_loss", "rejected_loss", "margin", "grad_norm", "learning_rate", "pairs_per_second")
VALIDATION = (
    "step",
    "objective",
    "chosen_loss",
    "rejected_loss",
    "margin",
    "implicit_accuracy",
    "implicit_accuracy_low",
    "implicit_accuracy_high",
    "base_implicit_accuracy",
    "reference_corrected_accuracy",
)
Point = dict[str, float | None]


class FineTuningJobMetrics(BaseModel):
    """Each point has its step; docs/guides/read-the-metrics.md explains the numbers."""

    model_config = ConfigDict(json_schema_extra={"example": examples.SERIES})

    object: Literal["fine_tuning.job.metrics"] = "fine_tuning.job.metrics"
    fine_tuning_job_id: str
    training: list[Point] = Field(description="Means over the steps since the point before.")
    validation: list[Point] = Field(description="The held-out pairs at each evaluation; the first is the base.")
    result: Point | None = Field(description="The exported adapter on all held-out pairs, once it is there.")


def series(session: Session, project_id: str, job_id: str, *, points: int | None) -> FineTuningJobMetrics:
    """``points``: at most so many of each series, evenly picked, first and last among them. Raises JobNotFound."""
    job = jobs.get(session, project_id, job_id)
    found = [event.data for event in events.metrics(session, job.id) if event.data is not None]
    training = _of([data for data in found if data.get("event") == "progress"], TRAINING)
    measured = [data for data in found if data.get("event") == "metrics"]
    validation = _of([data for data in measured if not data.get("final")], VALIDATION)
    final = _of([data for data in measured if data.get("final")], VALIDATION)
    return FineTuningJobMetrics(
        fine_tuning_job_id=job.id,
        training=picked(training, points),
        validation=picked(validation, points),
        result=final[-1] if final else None,
    )


def _of(found: Sequence[dict[str, Any]], names: Sequence[str]) -> list[Point]:
    """By step. A run that resumed from a checkpoint reports some steps twice: what was trained on counts."""
    last = {data["step"]: {name: data.get(name) for name in names} for data in found}
    return [last[step] for step in sorted(last)]


def picked(points: list[Point], count: int | None) -> list[Point]:
    if count is None or len(points) <= count:
        return points
    if count == 1:
        return points[-1:]
    return [points[round(index * (len(points) - 1) / (count - 1))] for index in range(count)]


def as_csv(found: FineTuningJobMetrics) -> str:
    """One table: ``series`` says which row is of which; what a series lacks is empty."""
    names = list(dict.fromkeys([*TRAINING, *VALIDATION]))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, ["series", *names], lineterminator="\r\n")
    table.writeheader()
    rows = [("training", found.training), ("validation", found.validation)]
    rows.append(("result", [found.result] if found.result is not None else []))
    for name, points in rows:
        for point in points:
            table.writerow({"series": name} | point)
    return text.getvalue()
