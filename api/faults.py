"""Faults of a request in words: every one at once, each with the field's path, what was given and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

SHOWN = 80  # characters of a given value that a message repeats


@dataclass(frozen=True)
class Fault:
    """``param`` is the field's dotted path, None when the request as a whole is at fault."""

    param: str | None
    message: str
    code: str | None = None


def describe(errors: Sequence[ErrorDetails], document: object, model: type[BaseModel]) -> list[Fault]:
    """Pydantic's errors about ``document``, one fault per field: the arms of a union count as one."""
    by_path: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in errors:
        by_path.setdefault(_path(error, document), []).append(error)
    return [_fault(path, group, model) for path, group in by_path.items()]


def _path(error: ErrorDetails, document: object) -> tuple[str, ...]:
    """``loc`` without the names of union arms, which stand in no document. Requests hold objects, no lists of them."""
    path: list[str] = []
    here = document
    for part in error["loc"]:
        if isinstance(here, dict) and part in here:
            here = here[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    return tuple(path)


def _fault(path: tuple[str, ...], group: list[ErrorDetails], model: type[BaseModel]) -> Fault:
    param = ".".join(path)
    kind = group[0]["type"]
    if kind == "extra_forbidden":
        return Fault(
            param, f"{param}: unknown field; known here: {', '.join(_siblings(path, model))}.", "unknown_field"
        )
    if kind == "missing":
        return Fault(param, f"{param}: required, but not given.", "missing_field")
    wanted = " or ".join(dict.fromkeys(_message(error) for error in group))
    return Fault(param, f"{param}: {wanted} (given: {_shown(group[0]['input'])}).", "invalid_value")


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ").replace("Input should", "should")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _siblings(path: tuple[str, ...], model: type[BaseModel]) -> list[str]:
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)
