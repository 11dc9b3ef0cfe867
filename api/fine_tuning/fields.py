"""The fields of a job that a client sends and reads back: the create request and the job both inherit them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from api.http.metadata import Metadata
from store.gpu_classes import MAX_MEMORY
from store.tables.job import MAX_PRIORITY


class JobSources(BaseModel):
    """What a job is made from. The service finds the row that each id names."""

    model: str = Field(description="A base model's name, from GET /v1/models.")
    training_file: str = Field(
        description="Id of a file uploaded with purpose fine-tune, or of a dataset: its latest revision is pinned, "
        "and the job shows it. `ds-...@3` is its revision 3."
    )
    validation_file: str | None = Field(None, description="Such an id; its pairs are held out, in place of a share.")


class JobAttributes(BaseModel):
    """What a client says about a job besides the options of its run. Each field is a column of ``jobs``."""

    suffix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = Field(
        None, description="Becomes part of the fine-tuned model's name, and the name of its file for ComfyUI."
    )
    metadata: Metadata | None = None
    priority: Annotated[int, Field(strict=True, ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = Field(
        0,
        description="Among the project's own queued jobs: a step of 1 counts as 6 hours of waiting. Other projects' "
        "jobs are neither overtaken nor held up by it.",
    )
    memory_gib: Annotated[int, Field(strict=True, ge=1, le=MAX_MEMORY)] | None = Field(
        None,
        description="Device memory that the job needs, in GiB: workers with less leave it to others. If not given, the "
        "base's own, which the operator registered; null where any worker will do.",
    )


def column_of(field: str) -> str:
    """Of the table ``jobs``. SQLAlchemy reserves the name ``metadata``."""
    return "job_metadata" if field == "metadata" else field


def columns(given: JobAttributes) -> dict[str, Any]:
    return {column_of(name): getattr(given, name) for name in JobAttributes.model_fields}
