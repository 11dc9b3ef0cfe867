"""One row of metadata, whatever file it came from: typed columns, all errors of the row at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from intake.findings import Code, Finding, printable
from intake.limits import Limits
from intake.pairs import Split
from intake.values import decimal_point, is_nothing, split_of, text_of

REQUIRED = ("prompt", "chosen")
WEIGHT = 1e6  # at most: sums of weights have to be finite, and no pair needs more


def without_nul(text: str) -> str:
    if "\0" in text:  # PostgreSQL stores none
        raise ValueError("Text should not hold a NUL character")
    return text


def _annotator(value: object) -> object:
    """A number is a name, too."""
    return text_of(value) or value


def _split(value: object) -> object:
    return (split_of(value) or value) if isinstance(value, str) else value


def _weight(value: object) -> object:
    return decimal_point(value) if isinstance(value, str) else value


def _seed(value: object) -> object:
    """-1 is what programs write for a seed that was drawn and not kept."""
    text = str(value).strip()
    return None if text in ("-1", "-1.0") else value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(without_nul)]
Path = Annotated[  # as Limits.path_characters: no entry has a longer one
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_024), AfterValidator(without_nul)
]
Annotator = Annotated[
    str,
    BeforeValidator(_annotator),
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(without_nul),
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
    split: Annotated[Split | None, BeforeValidator(_split)] = None
    weight: Annotated[
        Annotated[float, Field(gt=0, le=WEIGHT, allow_inf_nan=False)] | None, BeforeValidator(_weight)
    ] = None
    annotator: Annotator | None = None
    seed: Annotated[Annotated[int, Field(ge=0, lt=2**63)] | None, BeforeValidator(_seed)] = None


COLUMNS = tuple(Row.model_fields)


def parse_row(
    fields: Mapping[str, object], file: str, number: int, limits: Limits, columns: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Row] | Finding]:
    """The numbered row, or a finding for every column that is wrong. An empty cell is a missing one.

    ``columns`` are the file's own names of the fields.
    """
    own = columns or {}
    if own.get("split", "split").strip().casefold() != "split" and split_of(str(fields.get("split"))) is None:
        fields = {**fields, "split": None}  # a "subset" that is no split
    try:
        row = Row.model_validate({name: value for name, value in fields.items() if not _is_empty(name, value)})
    except ValidationError as error:
        seen: set[str] = set()
        for found in error.errors(include_url=False, include_context=False, include_input=False):
            column = str(found["loc"][0])
            if column not in seen:
                yield _finding(found, column, own.get(column, column), fields.get(column), file, number)
            seen.add(column)
        return
    if len(row.prompt) > limits.prompt_characters:
        text = f"{file} row {number}: the prompt has more than {limits.prompt_characters:,} characters; shorten it."
        yield Finding("prompt_too_long", "error", text, file, number)
    else:
        yield number, row


def _is_empty(column: str, value: object) -> bool:
    """Whether the cell says nothing. "None" and "null" may be a prompt, and a file may be called so."""
    if column in REQUIRED and isinstance(value, str):
        return not value.strip()
    return is_nothing(value)


def _finding(error: ErrorDetails, column: str, own: str, value: object, file: str, number: int) -> Finding:
    empty = error["type"] in ("missing", "string_too_short")
    code: Code = "prompt_empty" if column == "prompt" and empty else "row_invalid"
    if empty:
        reason = "is missing or empty; correct the row"
    else:
        shown = f": {printable(str(value))}" if column in ("split", "weight", "seed") else ""
        reason = f"is wrong ({error['msg'].removeprefix('Value error, ')}{shown}); correct the row"
    return Finding(code, "error", f"{file} row {number}: column {printable(own)!r} {reason}.", file, number)
