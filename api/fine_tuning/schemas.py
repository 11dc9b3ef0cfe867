"""What clients see of a job: OpenAI's FineTuningJob, events and checkpoints, and what we add to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model
from sqlalchemy import Row, inspect

from api.datasets.revision_ids import revision_id
from api.errors.example_ids import JOB
from api.fine_tuning import example_job, examples
from api.fine_tuning.fields import JobAttributes, JobSources, column_of
from api.http.paging import Page, PageWithEnds, page_of
from store.job_status import JobStatus
from store.jobs.job_leases import fine_tuned_model_name
from store.jobs.queue import QueuePosition
from store.tables.job import Checkpoint as CheckpointRow
from store.tables.job import Job as JobRow
from store.tables.job import JobEvent as JobEventRow
from trainer.spec.run import TrainingOptions
from trainer.spec.strict import Strict

# The options that are objects. A job shows them as its row has them: an earlier version may have written other fields.
GROUPS = tuple(
    name
    for name, field in TrainingOptions.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Strict)
)
Groups = create_model(
    "Groups",
    **{name: (dict[str, Any], Field(description="As requested, defaults filled in.")) for name in GROUPS},  # type: ignore[call-overload]
)


class JobError(BaseModel):
    code: str
    message: str
    param: str | None = None


class JobState(BaseModel):
    """What the service adds to the fields that the client gave."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int = Field(description="Unix seconds.")
    finished_at: int | None
    estimated_finish: int | None = Field(description="By the rate of the steps; of a running job alone.")
    organization_id: str = Field(description="The project that the job belongs to.")
    status: str = Field(
        description="validating_files, queued, running, paused, succeeded, failed or cancelled. A running job that "
        "was requested to stop keeps `running` until its worker has written a checkpoint: see `requested`."
    )
    fine_tuned_model: str | None
    result_files: list[str]
    trained_tokens: int | None = Field(None, description="Always null: images have no tokens.")
    error: JobError | None
    method: dict[str, Any] | None = Field(
        description="null where the request had top-level `hyperparameters` and no `method`: clients of that form "
        "know none of our methods. The job trains by the default one."
    )
    hyperparameters: dict[str, Any] = Field(description="As requested, `auto` included.")
    seed: int
    integrations: list[Any] = []
    progress: dict[str, Any] | None = Field(description="The trainer's latest progress: step, losses, ETA, ...")
    attempt: int = Field(description="How often a worker has taken the job.")
    requested: Literal["cancel", "pause"] | None
    queue_position: int | None = Field(
        None, description="Of a queued job, when it is read: how many start until it does, itself included, as of now."
    )
    expected_start: int | None = Field(
        None, description="Unix seconds; null while no job runs or none has succeeded yet: nothing predicts it then."
    )


class ShownJob(JobAttributes, Groups, JobSources, JobState):
    """A job's row as clients see it."""

    @classmethod
    def of(cls, row: JobRow | Row[Any], position: QueuePosition | None = None) -> Self:
        method = row.spec["method"]
        return cls.model_validate(
            {name: _shown(getattr(row, column)) for name, column in STORED.items()}
            | {name: row.spec.get(name, {}) for name in GROUPS}
            | {
                "estimated_finish": _estimated_finish(row),
                "organization_id": row.project_id,
                "model": row.spec["base"]["name"],
                "training_file": _source(row.training_file_id, row.training_dataset_id, row.training_revision),
                "validation_file": _source(row.validation_file_id, row.validation_dataset_id, row.validation_revision),
                "seed": row.spec["seed"],
                "method": None if row.older_form else method,
                "hyperparameters": method[method["type"]]["hyperparameters"],
                "queue_position": position.position if position is not None else None,
                "expected_start": _shown(position.expected_start) if position is not None else None,
            }
        )


# The fields that are a column of the row, with its name.
STORED = {name: column_of(name) for name in ShownJob.model_fields if column_of(name) in inspect(JobRow).column_attrs}


def _shown(value: Any) -> Any:
    """Times are shown as Unix seconds."""
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _source(file_id: str | None, dataset_id: str | None, number: int | None) -> str | None:
    return revision_id(dataset_id, number) if dataset_id is not None and number is not None else file_id


def _estimated_finish(row: JobRow | Row[Any]) -> int | None:
    """A job that waits again keeps what its last attempt foresaw, which holds no more."""
    running = row.status == JobStatus.RUNNING
    return int(row.estimated_finish.timestamp()) if running and row.estimated_finish else None


RUNNING = ShownJob.of(example_job.running()).model_dump(mode="json")


class FineTuningJob(ShownJob):
    # Every field stands in every answer.
    model_config = ConfigDict(json_schema_extra={"example": RUNNING}, json_schema_serialization_defaults_required=True)


class FineTuningJobDeleted(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"id": JOB, "object": "fine_tuning.job", "deleted": True}})

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    deleted: Literal[True] = True


class FineTuningJobList(Page[FineTuningJob]):
    model_config = ConfigDict(json_schema_extra=page_of(RUNNING, ends=False))


class FineTuningJobEvent(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": examples.EVENT_EXAMPLE})

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any] | None

    @classmethod
    def of(cls, row: JobEventRow) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "created_at": int(row.created_at.timestamp()),
                "level": row.level,
                "type": row.type,
                "message": row.message,
                "data": row.data,
            }
        )


class FineTuningJobEventList(Page[FineTuningJobEvent]):
    model_config = ConfigDict(json_schema_extra=page_of(examples.EVENT_EXAMPLE, ends=False))


class FineTuningJobCheckpoint(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": examples.WRITTEN})

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, Any]

    @classmethod
    def of(cls, row: CheckpointRow, job: JobRow) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "created_at": int(row.created_at.timestamp()),
                "fine_tuned_model_checkpoint": f"{fine_tuned_model_name(job)}:ckpt-step-{row.step}",
                "fine_tuning_job_id": row.job_id,
                "step_number": row.step,
                "metrics": {"step": row.step} | row.metrics,
            }
        )


class FineTuningJobCheckpointList(PageWithEnds[FineTuningJobCheckpoint]):
    model_config = ConfigDict(json_schema_extra=page_of(examples.WRITTEN, ends=True))
