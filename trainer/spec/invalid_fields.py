"""Translate pydantic's errors into one invalid field each, by the document's own paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

TAG = "type"  # the discriminator of our unions
_OBJECT_TYPES = ("model_type", "model_attributes_type", "dict_type")
_SUBJECT = re.compile(r"^(Input|String|Tuple|List|Dictionary|Value) should")
FieldPath = tuple[str, ...]
Models = tuple[type[BaseModel], ...]


@dataclass(frozen=True)
class InvalidField:
    """One field that is wrong: ``path`` is dotted, "" for the document as a whole; ``wanted`` is what would be right.

    A missing field has no ``given``.
    """

    path: str
    kind: Literal["missing", "unknown", "invalid"]
    given: Any
    wanted: str


def invalid_fields(
    error: ValidationError, document: object, model: type[BaseModel], *, limit: int | None = None
) -> list[InvalidField]:
    """One entry a field, of pydantic's first ``limit``: what it says about each arm of a union is joined.

    Where a part of a value is wrong, nothing is said of the whole: that another arm would take no such value at all
    does not help.
    """
    by_path: dict[FieldPath, list[InvalidField]] = {}
    for found in error.errors(include_url=False)[:limit]:
        path, invalid = _invalid_field(found, document, model)
        by_path.setdefault(path, []).append(invalid)
    wholes = {path[:length] for path in by_path for length in range(len(path))}
    return [_joined(group) for path, group in by_path.items() if path not in wholes]


def _joined(group: Sequence[InvalidField]) -> InvalidField:
    wanted = " or ".join(dict.fromkeys(field.wanted for field in group))
    return InvalidField(group[0].path, group[0].kind, group[0].given, wanted)


def _invalid_field(found: ErrorDetails, document: object, model: type[BaseModel]) -> tuple[FieldPath, InvalidField]:
    path, allowed, arms = _walk(found["loc"], document, model)
    given, name = found["input"], ".".join(path)
    match found["type"]:
        case "missing":
            return path, InvalidField(name, "missing", None, "required")
        case "extra_forbidden":
            return path, InvalidField(name, "unknown", given, f"allowed here: {', '.join(allowed)}")
        case "union_tag_not_found":
            return (*path, TAG), InvalidField(".".join((*path, TAG)), "missing", None, _one_of(arms))
        case "union_tag_invalid":
            return (*path, TAG), InvalidField(".".join((*path, TAG)), "invalid", given[TAG], _one_of(arms))
        case kind:
            return path, InvalidField(name, "invalid", given, _wanted(kind, found["msg"]))


def _wanted(kind: str, message: str) -> str:
    if kind in _OBJECT_TYPES:
        return "should be an object"
    return _SUBJECT.sub("should", message.removeprefix("Value error, "))


def _walk(
    location: Sequence[str | int], document: object, model: type[BaseModel]
) -> tuple[FieldPath, Sequence[str], Models]:
    """pydantic's location without the names of union arms, which are no part of the document.

    Also returns the fields that its parent knows, and the models that are valid at this path.
    """
    path: list[str] = []
    allowed: Sequence[str] = ()
    arms: Models = (model,)
    for part in location:
        if len(arms) > 1:
            arms = tuple(arm for arm in arms if _tag_of(arm) == part)
            continue
        fields = arms[0].model_fields if arms else {}
        inside, value = _child(document, part)
        if inside or part in fields:
            path.append(str(part))
            allowed, document = sorted(fields), value
            arms = _models(fields[str(part)].annotation) if part in fields else ()
    return tuple(path), allowed, arms


def _child(document: object, part: str | int) -> tuple[bool, object]:
    if isinstance(document, Mapping) and part in document:
        return True, document[part]
    if isinstance(document, list) and isinstance(part, int):
        return True, document[part]
    return False, None


def _models(annotation: Any) -> Models:
    """The models among the arms of an annotation, or the annotation itself if it is one."""
    return tuple(arm for arm in get_args(annotation) or (annotation,) if _is_model(arm))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tag_of(arm: type[BaseModel]) -> str:
    (tag,) = get_args(arm.model_fields[TAG].annotation)
    return str(tag)


def _one_of(arms: Models) -> str:
    *others, last = [repr(_tag_of(arm)) for arm in arms]
    return f"should be {', '.join(others)} or {last}"
