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
NO_HINTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class FieldError:
    """``param`` is the field's dotted path, None when the request as a whole is wrong."""

    param: str | None
    message: str
    code: str | None = None


def describe(
    error: ValidationError, document: object, model: type[BaseModel], hints: Mapping[str, str] = NO_HINTS
) -> list[FieldError]:
    """One error per field. ``hints`` say, by an unknown field's name, what to write in its place."""
    return [_field_error(invalid, hints) for invalid in invalid_fields(error, document, model)]


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
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
