"""The create request: a run's options at top level, next to OpenAI's own fields."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.errors.field_errors import FieldError
from api.errors.validated import checked
from api.fine_tuning import examples
from api.fine_tuning.fields import JobAttributes, JobSources
from api.fine_tuning.top_level import DEFAULT_METHOD, MULTIPLIER, move_hyperparameters
from trainer.spec.methods import MapoMethod, Method
from trainer.spec.run import TrainingOptions
from trainer.spec.strict import Flag

# Fields of OpenAI's requests that have another place or meaning here, by their names.
OPENAI_FIELDS = {
    MULTIPLIER: "give learning_rate, the rate itself",
}


class CreateFineTuningJob(JobAttributes, JobSources, TrainingOptions):
    """A top-level `null` means what leaving the field out means."""

    model_config = ConfigDict(json_schema_extra={"example": examples.REQUEST})

    method: Method = Field(
        MapoMethod(type=DEFAULT_METHOD), description="How to train; docs/concepts/methods.md says when to use which."
    )
    hyperparameters: dict[str, Any] | None = Field(
        None,
        description="Deprecated by OpenAI, and sent by older SDKs and LiteLLM: the method's hyperparameters, or "
        f"{MULTIPLIER}, which multiplies the default learning rate.",
        json_schema_extra={"deprecated": True},
    )
    dry_run: Flag = Field(False, description="Check all of it, answer what it would cost, and make nothing.")
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


def parse(document: dict[str, object]) -> tuple[CreateFineTuningJob | None, list[FieldError]]:
    """The request, or None and everything that is wrong with its form."""
    moved = move_hyperparameters(document)
    request, found = checked(moved.document, CreateFineTuningJob, OPENAI_FIELDS)
    return request, [*moved.field_errors, *(moved.in_clients_terms(one) for one in found)]
