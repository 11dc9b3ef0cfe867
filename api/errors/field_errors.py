"""Errors of a request's fields: all at once, each with the field's path, the given and the allowed values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from trainer.spec.problems import Problem, problems

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
    return [_field_error(problem, hints) for problem in problems(error, document, model)]


def _field_error(problem: Problem, hints: Mapping[str, str]) -> FieldError:
    param = problem.path or None
    subject = f"{problem.path}: " if problem.path else ""
    match problem.kind:
        case "missing":
            return FieldError(param, f"{subject}required, but not given{_choice(problem)}.", "missing_field")
        case "unknown":
            instead = hints.get(problem.path.rpartition(".")[2], problem.wanted)
            return FieldError(param, f"{subject}unknown field; {instead}.", "unknown_field")
        case "invalid":
            return FieldError(param, f"{subject}{problem.wanted} (given: {_shown(problem.given)}).", "invalid_value")


def _choice(problem: Problem) -> str:
    return "" if problem.wanted == "required" else f"; {problem.wanted}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
