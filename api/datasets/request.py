"""What a client sends: a dataset to make, a file to add, the fields of a pair."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from api.errors.field_errors import FieldError
from api.errors.validated import checked
from api.http.metadata import Metadata
from intake import Limits, Split
from intake.rows import Text

LIMITS = Limits()
MAX_FILES = 100
FORM_TEXTS = ("prompt", "split", "weight", "annotator", "seed")


class CreateDataset(BaseModel):
    """`null` means what leaving the field out means."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"example": {"name": "foxes", "metadata": {"team": "a"}, "file_ids": ["file-0198c0de"]}},
    )

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = Field(
        pattern=r"^[^\x00-\x1f\x7f]+$", description="For people; several datasets may have the same."
    )
    metadata: Metadata | None = None
    file_ids: Annotated[list[str], Field(max_length=MAX_FILES)] | None = Field(
        None, description="Processed files, whose pairs are the first ones, in this order."
    )

    @field_validator("file_ids")
    @classmethod
    def _once(cls, given: list[str] | None) -> list[str] | None:
        if given is not None and len(set(given)) < len(given):
            raise ValueError("should name each file once")
        return given


class AddDatasetFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"example": {"file_id": "file-0198c0de"}})

    file_id: str = Field(description="A processed file; all of its pairs are added.")


class PairFields(BaseModel):
    """The fields of a pair besides its images, with the limits that a row of an archive has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[Text, StringConstraints(max_length=LIMITS.prompt_characters)]
    split: Split | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    annotator: Annotated[Text, StringConstraints(max_length=200)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


def pair_fields(sent: dict[str, str]) -> tuple[PairFields | None, list[FieldError]]:
    """The fields of a form, where a blank one is a missing one; or None and everything that is wrong with them."""
    document = {name: text for name, text in sent.items() if text.strip()}
    return checked(document, PairFields)
