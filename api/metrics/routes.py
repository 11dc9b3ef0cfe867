"""/metrics, without a key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from api.dependencies import Opened
from api.http.exposition import MEDIA_TYPE
from api.metrics import service

router = APIRouter(tags=["health"])
EXAMPLE = """\
# HELP pairtune_queue_age_seconds For how long the oldest job or file of a queue has been waiting; 0 when none is.
# TYPE pairtune_queue_age_seconds gauge
pairtune_queue_age_seconds{queue="train"} 12.5
"""
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}}
}


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Operators' signals",
    response_class=PlainTextResponse,
    responses=RESPONSES,
)
def metrics(request: Request, backends: Opened) -> PlainTextResponse:
    """Operators' signals in Prometheus' text format; docs/reference/metrics.md says what each means. Without
    a database the process's own are told, and `pairtune_database_up` is 0."""
    return PlainTextResponse(service.scrape(backends, request.app.state.requests), media_type=MEDIA_TYPE)
