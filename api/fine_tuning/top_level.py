"""OpenAI's older form of a create request: ``hyperparameters`` at top level, which move to the method.

SDKs for OpenAI's first fine-tuning API send them there, and so does LiteLLM, which sends at least ``{}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.errors.field_errors import FieldError, shown
from trainer.spec.method_facts import METHODS
from trainer.spec.resolved import DEFAULT_LEARNING_RATE

FIELD, MULTIPLIER = "hyperparameters", "learning_rate_multiplier"
DEFAULT_METHOD = "mapo"


def has_older_form(document: Mapping[str, Any]) -> bool:
    """Its job is shown without a method: LiteLLM refuses a job whose method is none of OpenAI's."""
    return isinstance(document.get(FIELD), dict) and document.get("method") is None


@dataclass(frozen=True)
class Moved:
    """``document`` without the field; ``origins`` are the client's own paths, by the paths in ``document``."""

    document: dict[str, Any]
    origins: Mapping[str, str]
    field_errors: list[FieldError]

    def in_clients_terms(self, error: FieldError) -> FieldError:
        origin = self.origins.get(error.param or "")
        if error.param is None or origin is None:
            return error
        return replace(error, param=origin, message=error.message.replace(error.param, origin, 1))


def move_hyperparameters(document: Mapping[str, Any]) -> Moved:
    """Where the field or the method is malformed, the document stays as it is: its check says what is wrong."""
    top, method = document.get(FIELD), _method(document)
    if not isinstance(top, dict) or method is None:
        return Moved(dict(document), {}, [])
    name = method["type"]
    own, path = dict(method[name][FIELD]), f"method.{name}.{FIELD}"
    origins: dict[str, str] = {}
    field_errors: list[FieldError] = []
    for given, value in top.items():
        origin = f"{FIELD}.{given}"
        option, moved = _translated(given, value)
        if moved is None or (moved == "auto" and option in own):
            continue
        if given == MULTIPLIER and option == MULTIPLIER:
            wanted = f"{origin}: should be a number or 'auto' (given: {shown(value)})."
            field_errors.append(FieldError(origin, wanted, "invalid_value"))
        elif option in own and own[option] not in ("auto", moved):
            twice = f"{origin}: {path}.{option} has another value; give it once."
            field_errors.append(FieldError(origin, twice, "invalid_value"))
        else:
            own[option] = moved
            origins[f"{path}.{option}"] = origin
    rest = {key: value for key, value in document.items() if key != FIELD}
    moved_method = method | {name: method[name] | {FIELD: own}}
    return Moved(rest | {"method": moved_method}, origins, field_errors)


def _translated(name: str, value: Any) -> tuple[str, Any]:
    """Our hyperparameter and its value, None for no value. A multiplier is one of the default learning rate."""
    if name != MULTIPLIER:
        return name, value
    if value is None or value == "auto":
        return "learning_rate", value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MULTIPLIER, value
    return "learning_rate", value * DEFAULT_LEARNING_RATE


def _method(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request's method with every level of its object, or None where one has another form."""
    method = document.get("method")
    method = {"type": DEFAULT_METHOD} if method is None else method
    name = method.get("type") if isinstance(method, dict) else None
    if not isinstance(name, str) or name not in METHODS:
        return None
    options = method.get(name, {})
    own = options.get(FIELD, {}) if isinstance(options, dict) else None
    return method | {name: options | {FIELD: own}} if isinstance(own, dict) else None
