"""Report fields of a spec that conflict with each other as errors of the field to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


@dataclass(frozen=True)
class ConflictingField:
    """``path`` leads to the field from the model whose validator finds this."""

    path: tuple[str, ...]
    given: object
    wanted: str


def reject_conflicting_fields(fields: Sequence[ConflictingField]) -> None:
    """Called in a model's validator. Raises pydantic.ValidationError with all of them, each at its own field."""
    if fields:
        raise ValidationError.from_exception_data(
            "conflicts",
            [
                InitErrorDetails(
                    type=PydanticCustomError("conflict", "{wanted}", {"wanted": field.wanted}),
                    loc=field.path,
                    input=field.given,
                )
                for field in fields
            ],
        )
