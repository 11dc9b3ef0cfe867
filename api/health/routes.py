"""/healthz and /readyz, without a key."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Injected
from api.errors.errors import NotReady
from api.errors.responses import documented
from api.health import service
from api.health.schemas import Alive, Ready
from api.http.route_rules import public

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="healthz")
@public
async def healthz() -> Alive:
    """The process is up; says nothing about what it needs."""
    return Alive()


@router.get("/readyz", operation_id="readyz", responses=documented(NotReady))
@public
def readyz(dependencies: Injected) -> Ready:
    """The database answers and has this version's migrations, and the blob store can be written: else 503. Without a
    broker, or with little disk space, it is ready and `degraded`."""
    return service.check(dependencies)
