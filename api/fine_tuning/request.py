"""The create request: a run's options at top level, beside OpenAI's own fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from api.faults import Fault, describe
from store.memory_classes import MOST_MEMORY
from store.models import MOST_PRIORITY
from trainer.spec.methods import MapoMethod, Method
from trainer.spec.run import TrainingOptions
from trainer.spec.strict import Flag

Key = Annotated[str, Field(min_length=1, max_length=64)]
Value = Annotated[str, Field(max_length=512)]

# Fields of OpenAI's requests that have another place or meaning here, by their names.
OPENAI_FIELDS = {
    "hyperparameters": 'they stand in method: {"type": "dpo", "dpo": {"hyperparameters": {...}}}',
    "learning_rate_multiplier": "give learning_rate, the rate itself",
}


class CreateFineTuningJob(TrainingOptions):
    """A top-level `null` means what leaving the field out means."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "emoji-xl",
                "training_file": "file-0198c0de",
                "method": {"type": "mapo", "mapo": {"hyperparameters": {"preset": "style", "max_steps": 150}}},
                "suffix": "line-art",
                "seed": 7,
            }
        }
    )

    model: str = Field(description="A base model's name, from GET /v1/models.")
    training_file: str = Field(
        description="Id of a file uploaded with purpose fine-tune, or of a data set: its latest revision is pinned. "
        "`ds-...@3` is its revision 3."
    )
    validation_file: str | None = Field(None, description="Such an id; its pairs are held out, in place of a share.")
    method: Method = Field(MapoMethod(type="mapo"), description="How to train; docs/methods.md says when to use which.")
    suffix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = Field(
        None, description="Becomes part of the fine-tuned model's name, and the name of its file for ComfyUI."
    )
    metadata: Annotated[dict[Key, Value], Field(max_length=16)] | None = None
    dry_run: Flag = Field(False, description="Check all of it, answer what it would cost, and make nothing.")
    priority: Annotated[int, Field(strict=True, ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = Field(
        0,
        description="Among the project's own queued jobs: a step of 1 counts as 6 hours of waiting. Other projects' "
        "jobs are neither overtaken nor held up by it.",
    )
    memory_gib: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMORY)] | None = Field(
        None,
        description="Device memory that the job needs, in GiB: workers with less leave it to others. The base's own, "
        "which the operator registered, if not given.",
    )
    integrations: list[Any] | None = Field(None, description="Must be empty: no integration is offered.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        return {name: value for name, value in document.items() if value is not None}

    @field_validator("integrations")
    @classmethod
    def _no_integrations(cls, given: list[Any] | None) -> list[Any] | None:
        if given:
            raise ValueError("no integration is offered; leave it out")
        return given


def parse(document: dict[str, object]) -> tuple[CreateFineTuningJob | None, list[Fault]]:
    """The request, or None and everything that is wrong with its form."""
    try:
        return CreateFineTuningJob.model_validate(document), []
    except ValidationError as error:
        return None, describe(error, document, CreateFineTuningJob, OPENAI_FIELDS)
