"""/metrics, without a key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from api.http.route_rules import public

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
@public
def metrics(request: Request) -> PlainTextResponse:
    """Operators' signals in Prometheus' text format; docs/reference/metrics.md says what each means. If
    the database does not answer, the answer has the process's own figures, and `pairtune_database_up` is 0."""
    return PlainTextResponse(generate_latest(request.app.state.metrics), media_type=CONTENT_TYPE_PLAIN_0_0_4)
