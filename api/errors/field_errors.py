"""Errors of a request's fields: all at once, each with the field's path, the given and the allowed values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from trainer.spec.invalid_fields import InvalidField, invalid_fields

SHOWN = 80  # characters of a given value that a message repeats
DESCRIBED = 200  # errors of one document that are put into words; the others are counted
PARAM_CHARACTERS, MESSAGE_CHARACTERS = 200, 600  # a name that the client chose may be as long as its body
NO_HINTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class FieldError:
    """``param`` is the field's dotted path, None when the request as a whole is wrong.

    Both are cut to a length that an answer may have. ``count``: the errors that this one stands for.
    """

    param: str | None
    message: str
    code: str | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if self.param is not None:
            object.__setattr__(self, "param", shortened(self.param, PARAM_CHARACTERS))
        object.__setattr__(self, "message", shortened(self.message, MESSAGE_CHARACTERS))


def shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def describe(
    error: ValidationError, document: object, model: type[BaseModel], hints: Mapping[str, str] = NO_HINTS
) -> list[FieldError]:
    """One error per field. ``hints`` say, by an unknown field's name, what to write in its place."""
    described = [_field_error(invalid, hints) for invalid in invalid_fields(error, document, model, limit=DESCRIBED)]
    others = error.error_count() - DESCRIBED
    if others > 0:
        described.append(FieldError(None, f"{others} more errors.", "invalid_value", others))
    return described


def _field_error(invalid: InvalidField, hints: Mapping[str, str]) -> FieldError:
    param = invalid.path or None
    subject = f"{invalid.path}: " if invalid.path else ""
    match invalid.kind:
        case "missing":
            return FieldError(param, f"{subject}required, but not given{_choice(invalid)}.", "missing_field")
        case "unknown":
            instead = hints.get(invalid.path.rpartition(".")[2], invalid.wanted)
            return FieldError(param, f"{subject}unknown field; {instead}.", "unknown_field")
        case "invalid":
            return FieldError(param, f"{subject}{invalid.wanted} (given: {shown(invalid.given)}).", "invalid_value")


def _choice(invalid: InvalidField) -> str:
    return "" if invalid.wanted == "required" else f"; {invalid.wanted}"


def shown(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False, default=str), SHOWN)
