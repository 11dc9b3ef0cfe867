"""/v1/usage."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Caller, Injected
from api.errors.responses import failures
from api.http.route_rules import requires
from api.http.transactions import transaction
from api.usage import service
from api.usage.schemas import Usage
from store.roles import Role

router = APIRouter(prefix="/v1/usage", tags=["usage"])


@router.get("", operation_id="retrieveUsage", responses=failures())
@requires(Role.READ_ONLY)
def retrieve_usage(caller: Caller, dependencies: Injected) -> Usage:
    """What the project stores and runs, how long it has trained, and what its quotas leave. An addition."""
    with transaction(dependencies) as work:
        return service.now(work.session, caller)
