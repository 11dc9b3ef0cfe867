"""A request's document against its model: lengths first, then everything else, each error with its field.

What is too long is not looked into: a list of 100,000 wrong items is one error, found in no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.errors.errors import InvalidRequest
from api.errors.field_errors import NO_HINTS, FieldError, describe

Model = TypeVar("Model", bound=BaseModel)
Schema = Mapping[str, Any]
MAX_ITEMS = 1000  # of a list or object whose model names no limit
UNKNOWN_FIELDS = 50  # beyond those that an object may have; so many are named one by one


def validated(document: Mapping[str, object], model: type[Model], hints: Mapping[str, str] = NO_HINTS) -> Model:
    """Raise InvalidRequest with every error of the document's form."""
    found, field_errors = checked(document, model, hints)
    if found is None:
        raise InvalidRequest(field_errors)
    return found


def checked(
    document: Mapping[str, object], model: type[Model], hints: Mapping[str, str] = NO_HINTS
) -> tuple[Model | None, list[FieldError]]:
    """The document as the model has it, or None and everything that is wrong with its form."""
    schema = _schema(model)
    too_long = list(_too_long(document, [schema], schema.get("$defs", {}), ()))
    if too_long:
        return None, too_long
    try:
        return model.model_validate(document), []
    except ValidationError as error:
        return None, describe(error, document, model, hints)


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _too_long(
    value: object, schemas: Sequence[Schema], definitions: Schema, path: tuple[str, ...]
) -> Iterator[FieldError]:
    """A value may have the length that any of its schemas allows; one of another type is left to the model."""
    if not isinstance(value, list | Mapping):
        return
    kind = "array" if isinstance(value, list) else "object"
    arms = [arm for schema in schemas for arm in _arms(schema, definitions) if arm.get("type") == kind]
    if not arms:
        return
    limit = max(_limit(arm) for arm in arms)
    if len(value) > limit:
        what = "items" if kind == "array" else "fields"
        name = ".".join(path)
        message = f"{name or 'The body'}{':' if name else ''} should have at most {limit} {what} (given: {len(value)})."
        yield FieldError(name or None, message, "invalid_value")
        return
    children = enumerate(value) if isinstance(value, list) else value.items()
    for key, child in children:
        if isinstance(child, list | Mapping):
            inner = [schema for arm in arms for schema in _inner(arm, key)]
            yield from _too_long(child, inner, definitions, (*path, str(key)))


def _arms(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """The schema itself, or the alternatives that it names."""
    if "$ref" in schema:
        yield from _arms(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif alternatives := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        for alternative in alternatives:
            yield from _arms(alternative, definitions)
    else:
        yield schema


def _limit(arm: Schema) -> int:
    if arm["type"] == "array":
        return int(arm.get("maxItems", MAX_ITEMS))
    if "properties" in arm:
        return len(arm["properties"]) + UNKNOWN_FIELDS
    return int(arm.get("maxProperties", MAX_ITEMS))


def _inner(arm: Schema, key: object) -> Iterator[Schema]:
    found = arm.get("items") if arm["type"] == "array" else arm.get("properties", {}).get(key)
    found = found if found is not None else arm.get("additionalProperties")
    if isinstance(found, Mapping):
        yield found
