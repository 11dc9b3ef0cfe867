"""/v1/usage."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Caller, Opened
from api.errors.responses import failures
from api.http.transactions import transaction
from api.usage import service
from api.usage.schemas import Usage

router = APIRouter(prefix="/v1/usage", tags=["usage"])


@router.get("", operation_id="retrieveUsage", responses=failures())
def retrieve_usage(caller: Caller, backends: Opened) -> Usage:
    """What the project stores and runs, how long it has trained, and what its quotas leave. An addition."""
    with transaction(backends) as work:
        return service.now(work.session, caller)
