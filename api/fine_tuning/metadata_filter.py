"""The filter ``metadata[key]=value`` of job lists, any number of times; ``metadata=null`` asks for jobs without any."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Request

from api.errors import InvalidRequest
from api.faults import Fault

_ITEM = re.compile(r"metadata\[(.+)\]")
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
    for name, value in request.query_params.multi_items():
        item = _ITEM.fullmatch(name)
        if item is not None:
            wanted[item.group(1)] = value
    if request.query_params.get("metadata") != "null":
        return wanted
    if wanted:
        raise InvalidRequest([Fault("metadata", "metadata: give metadata=null or metadata[key]=value, not both.")])
    return None


MetadataFilter = Annotated[dict[str, str] | None, Depends(_read)]
