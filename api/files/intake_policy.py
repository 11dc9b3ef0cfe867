"""What an uploader may decide about doubtful rows, as fields of the upload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.errors.field_errors import FieldError
from api.errors.validated import checked
from intake.policy import InvalidRows, Ties
from intake.rows import without_nul


def _spelled_out(value: object) -> object:
    if value not in (True, False, "true", "false"):
        raise ValueError("should be true or false")
    return value


FormFlag = Annotated[bool, BeforeValidator(_spelled_out)]
UploadPrompt = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), AfterValidator(without_nul)
]


class IntakePolicy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    ties: Ties = Field(
        "drop", description="Pairs of which neither image is preferred: left out, used in both orders, or errors."
    )
    invalid_rows: InvalidRows = Field(
        "refuse",
        description="Whether a row that cannot be used makes the file unusable, or is left out with a warning.",
    )
    strict: FormFlag = Field(False, description="Every warning is an error.")
    prompt: UploadPrompt | None = Field(
        None, description="For images that come without one, as a folder of a subject's photos."
    )


POLICY_FIELDS = tuple(IntakePolicy.model_fields)
FORM_PROPERTIES = IntakePolicy.model_json_schema()["properties"]


def policy_of(fields: Mapping[str, str]) -> tuple[dict[str, Any] | None, list[FieldError]]:
    """The policy as a file's row stores it, None without any of its fields; and every error in the fields."""
    given = {name: value for name, value in fields.items() if name in POLICY_FIELDS}
    policy, field_errors = checked(given, IntakePolicy)
    return stored_policy(policy) if policy is not None else None, field_errors


def stored_policy(policy: IntakePolicy) -> dict[str, Any] | None:
    return policy.model_dump(exclude_unset=True, exclude_none=True) or None
