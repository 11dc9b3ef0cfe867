"""The filter ``metadata[key]=value`` of job lists, any number of times; ``metadata=null`` matches jobs without any."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Request

from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError

_ITEM = re.compile(r"metadata\[(.+)\]", re.DOTALL)
PARAMETER = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "style": "deepObject",
            "explode": True,
            "required": False,
            "description": "Jobs whose metadata holds all of these; `metadata=null` for jobs without metadata.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}


async def _read(request: Request) -> dict[str, str] | None:
    """None stands for ``metadata=null``, an empty dict for no filter."""
    wanted: dict[str, str] = {}
    absent = False
    field_errors: list[FieldError] = []
    for name, value in request.query_params.multi_items():
        item = _ITEM.fullmatch(name)
        if item is not None and item.group(1) not in wanted:
            wanted[item.group(1)] = value
        elif item is not None:
            field_errors.append(FieldError(name, f"{name}: given twice; a key has one value.", "invalid_value"))
        elif (name, value) == ("metadata", "null"):
            absent = True
        elif name == "metadata" or name.startswith("metadata["):
            field_errors.append(
                FieldError(name, f"{name}: should be metadata[key]=value or metadata=null.", "invalid_value")
            )
    if absent and wanted:
        message = "metadata: give metadata=null or metadata[key]=value, not both."
        field_errors.append(FieldError("metadata", message, "invalid_value"))
    if field_errors:
        raise InvalidRequest(field_errors)
    return None if absent else wanted


MetadataFilter = Annotated[dict[str, str] | None, Depends(_read)]
