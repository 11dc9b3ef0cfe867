"""A job's live routes: its events as they come, its metrics as series."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.dependencies import Caller, Dependencies, Injected
from api.errors.errors import TooManyStreams
from api.errors.responses import failures
from api.fine_tuning.examples import CSV, STREAM
from api.fine_tuning.live.event_hub import EventHub
from api.fine_tuning.live.event_stream import stream
from api.fine_tuning.live.open_streams import OpenStream
from api.fine_tuning.live.series import FineTuningJobMetrics, as_csv, series
from api.http.route_rules import requires
from api.http.transactions import transaction
from store.errors import JobNotFound
from store.jobs import events, jobs
from store.roles import Role

router = APIRouter(prefix="/v1/fine_tuning/jobs/{fine_tuning_job_id}", tags=["fine-tuning"])
SSE = "text/event-stream"
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-Sent Events.", "content": {SSE: {"schema": {"type": "string"}, "example": STREAM}}},
}
TABLE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": FineTuningJobMetrics,
        "description": "The series.",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": CSV}},
    }
}


@router.get(
    "/events/stream",
    operation_id="streamFineTuningEvents",
    response_class=StreamingResponse,
    responses=STREAMED | failures(JobNotFound, TooManyStreams),
)
@requires(Role.READ_ONLY)
async def stream_events(
    fine_tuning_job_id: str,
    request: Request,
    caller: Caller,
    dependencies: Injected,
    last_event_id: Annotated[str | None, Header(description="Go on after this event.")] = None,
) -> StreamingResponse:
    """The job's events, oldest first, then each as it comes; `done` with the status ends the stream. Take the
    `id` of the last message as `Last-Event-ID` to go on where a connection broke."""
    start = await run_in_threadpool(_start, dependencies, caller.project_id, fine_tuning_job_id, last_event_id)
    one = OpenStream(dependencies, caller.key_id)
    await run_in_threadpool(one.begin)
    hub: EventHub = request.app.state.hub
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # proxies such as nginx would hold events back
    return StreamingResponse(one.around(stream(hub, fine_tuning_job_id, start)), media_type=SSE, headers=headers)


def _start(dependencies: Dependencies, project_id: str, job_id: str, last_event_id: str | None) -> int:
    """The sequence to go on from; 0 is the beginning, also after an event that the job does not have."""
    with transaction(dependencies) as work:
        job = jobs.get(work.session, project_id, job_id)
        sequence = events.sequence_of(work.session, job.id, last_event_id) if last_event_id else None
        return sequence or 0


@router.get(
    "/metrics", operation_id="listFineTuningMetrics", response_model=None, responses=TABLE | failures(JobNotFound)
)
@requires(Role.READ_ONLY)
def list_metrics(
    fine_tuning_job_id: str,
    caller: Caller,
    dependencies: Injected,
    points: Annotated[int | None, Query(ge=1, le=10_000, description="At most so many of each series.")] = None,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> FineTuningJobMetrics | Response:
    """Losses, margin, accuracy and speed over the steps, as JSON or CSV."""
    with transaction(dependencies) as work:
        found = series(work.session, caller.project_id, fine_tuning_job_id, points=points)
    return found if form == "json" else Response(as_csv(found), media_type="text/csv")
