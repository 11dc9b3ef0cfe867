"""``--set NAME=VALUE`` into a create request's fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from cli.client.server import JsonObject


def request_of(method: str, changes: Sequence[str]) -> JsonObject:
    """The ``method`` field and options at top level. Raises typer.BadParameter."""
    hyperparameters: JsonObject = {}
    body: JsonObject = {"method": {"type": method, method: {"hyperparameters": hyperparameters}}}
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{change!r} should be NAME=VALUE, e.g. learning_rate=1e-3 or adapter.rank=32")
        *folders, last = name.split(".")
        target = body if folders else hyperparameters
        for depth, folder in enumerate(folders, 1):
            target = target.setdefault(folder, {})
            if not isinstance(target, dict):
                path = ".".join(folders[:depth])
                raise typer.BadParameter(f"{change!r} goes into {path}, which another --set makes {json.dumps(target)}")
        target[last] = value_of(value)
    return body


def value_of(text: str) -> Any:
    """JSON where it is JSON (numbers, true, null, lists), otherwise the text itself; NaN and 1e999 are none."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value
