"""/v1/audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.audit.schemas import AuditEntry, AuditEntryList
from api.dependencies import Caller, Injected
from api.errors.responses import failures
from api.http.paging import After, cut
from api.http.route_rules import requires
from api.http.transactions import transaction
from store.errors import CursorUnknown
from store.roles import Role
from store.tenants import audit

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", operation_id="listAuditEntries", responses=failures(CursorUnknown))
@requires(Role.ADMIN)
def list_audit_entries(
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    action: Annotated[str | None, Query(max_length=100, description="Only this action, such as `key.created`.")] = None,
) -> AuditEntryList:
    """Who made and revoked the project's keys, changed its limits and webhooks, and deleted what, newest first."""
    with transaction(dependencies) as work:
        found = audit.newest_first(work.session, caller.project_id, action=action, after=after, limit=limit + 1)
        rows, has_more = cut(found, limit)
        data = [AuditEntry.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return AuditEntryList(data=data, has_more=has_more, first_id=first, last_id=last)
