"""Whether a row's spec was written by a later version than this worker's, as while an installation is upgraded.

What a newer API has accepted must not fail on an older worker, nor be done without what it does not know: it stays
queued for a worker that can read it. docs/decisions/0012-spec-versions.md.
"""

from __future__ import annotations

from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

log = structlog.get_logger()

# What pydantic calls a field, a choice and a kind of method that the model does not have.
UNKNOWN = {"extra_forbidden", "literal_error", "union_tag_invalid"}


def readable(model: type[BaseModel], row_id: str, spec: dict[str, Any]) -> bool:
    """False for a spec that names what this version does not know. One that is wrong otherwise is no later one: it
    is tried, and fails with what is wrong."""
    try:
        model.model_validate(spec)
    except ValidationError as error:
        unknown = [".".join(map(str, one["loc"])) for one in error.errors() if one["type"] in UNKNOWN]
        if unknown:
            log.warning("worker.too_old", row=row_id, unknown=unknown)
        return not unknown
    return True
