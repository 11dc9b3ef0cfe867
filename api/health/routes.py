"""/healthz and /readyz, without a key."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.dependencies import Injected
from api.errors.errors import NotReady
from api.errors.responses import documented
from api.health.schemas import Alive, Ready
from api.health.service import Readiness
from api.http.route_rules import public

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="healthz")
@public
async def healthz() -> Alive:
    """The process is up; says nothing about what it needs."""
    return Alive()


@router.get("/readyz", operation_id="readyz", responses=documented(NotReady))
@public
async def readyz(dependencies: Injected, request: Request) -> Ready:
    """The database answers and has this version's migrations, and the blob store can be written: else 503. Without a
    broker, or with little disk space, it is ready and `degraded`. An answer may be 5 seconds old."""
    readiness: Readiness = request.app.state.readiness
    return await readiness.check(dependencies)
