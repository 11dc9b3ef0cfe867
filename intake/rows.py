"""One row of metadata, whatever file it came from: typed columns, all errors of the row at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from intake.findings import Code, Finding
from intake.limits import Limits
from intake.pairs import Split

REQUIRED = ("prompt", "chosen")


def without_nul(text: str) -> str:
    if "\0" in text:  # PostgreSQL stores none
        raise ValueError("Text should not hold a NUL character")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(without_nul)]
Path = Annotated[  # as Limits.path_characters: no entry has a longer one
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_024), AfterValidator(without_nul)
]
Annotator = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(without_nul)
]


class Row(BaseModel):
    """``chosen`` and ``rejected`` are paths within the archive, beside the metadata file or from the top.

    A row may name no rejected image: then the base model draws one before training.

    ``weight`` multiplies the pair's loss. ``seed`` says which noise a generated image came from: it is in the run
    directory, and no method uses it yet. ``annotator`` serves the review alone.
    """

    model_config = ConfigDict(frozen=True)

    prompt: Text
    chosen: Path
    rejected: Path | None = None
    split: Split | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    annotator: Annotator | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


COLUMNS = tuple(Row.model_fields)


def parse_row(
    fields: Mapping[str, object], file: str, number: int, limits: Limits
) -> Iterator[tuple[int, Row] | Finding]:
    """The numbered row, or a finding for every column that is wrong. An empty cell (None) is a missing one."""
    try:
        row = Row.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        for found in error.errors(include_url=False, include_context=False, include_input=False):
            yield _finding(found, file, number)
        return
    if len(row.prompt) > limits.prompt_characters:
        text = f"{file} row {number}: the prompt has more than {limits.prompt_characters:,} characters; shorten it."
        yield Finding("prompt_too_long", "error", text, file, number)
    else:
        yield number, row


def _finding(error: ErrorDetails, file: str, number: int) -> Finding:
    column = str(error["loc"][0])
    empty = error["type"] in ("missing", "string_too_short")
    code: Code = "prompt_empty" if column == "prompt" and empty else "row_invalid"
    if not empty:
        reason = f"is wrong ({error['msg'].removeprefix('Value error, ')}); correct the row"
    elif column == "rejected":
        reason = "is empty; name the image, or leave the column out"
    else:
        reason = "is missing or empty; correct the row"
    return Finding(code, "error", f"{file} row {number}: column {column!r} {reason}.", file, number)
