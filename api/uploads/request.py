"""The requests of an upload: begin one, and make a file of its parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from api.errors.errors import InvalidRequest
from api.errors.example_ids import PART, SHA256
from api.errors.field_errors import FieldError
from api.files.intake_policy import UploadPrompt
from intake.policy import InvalidRows, Ties
from store.files.uploads import MAX_PARTS

Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$", to_lower=True)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
OPENAI_FIELDS = {"expires_after": "files stay until they are deleted"}


class CreateUpload(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "example": {
                "filename": "pairs.zip",
                "bytes": 62113764,
                "mime_type": "application/zip",
                "purpose": "fine-tune",
            }
        },
    )

    filename: Annotated[str, Field(min_length=1, max_length=1024)]
    bytes: Annotated[int, Field(ge=1, description="The whole file's size; the parts must come to exactly this.")]
    mime_type: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        description="Taken and not used: what a file is, its bytes say."
    )
    purpose: Literal["fine-tune"]
    ties: Ties = Field("drop", description="As for a file that is uploaded at once.")
    invalid_rows: InvalidRows = Field("refuse", description="As `ties`.")
    strict: bool = Field(False, description="As `ties`.")
    prompt: UploadPrompt | None = Field(None, description="As `ties`.")


class CompleteUpload(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"example": {"part_ids": [PART], "sha256": SHA256}}
    )

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_PARTS)] = Field(
        description="The parts in the order of the file; parts not named are dropped."
    )
    md5: Md5 | None = Field(None, description="Of the whole file, in hexadecimal. When it differs, nothing changes.")
    sha256: Sha256 | None = Field(None, description="As `md5`; an addition.")

    @field_validator("part_ids")
    @classmethod
    def _once(cls, given: list[str]) -> list[str]:
        if len(set(given)) < len(given):
            raise ValueError("should name each part once")
        return given


def too_large(given: int, limit: int) -> InvalidRequest:
    message = f"bytes: the limit for a file is {limit} (given: {given})."
    return InvalidRequest([FieldError("bytes", message, "invalid_value")])
