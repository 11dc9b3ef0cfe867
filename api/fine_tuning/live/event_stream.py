"""A job's events as Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi.sse import format_sse_event

from api.fine_tuning.live.event_hub import EventBatch, EventHub
from api.fine_tuning.schemas import FineTuningJobEvent
from store.tables.job import JobEvent

KEEP_ALIVE_SECONDS = 15.0  # proxies close connections on which nothing comes
KEEP_ALIVE = format_sse_event(comment="still here")
RETRY_MILLISECONDS = 2000


async def stream(hub: EventHub, job_id: str, sequence: int) -> AsyncIterator[bytes]:
    """One message an event, with its id; ``done`` with the job's status ends it."""
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    batches = hub.subscribe(job_id, sequence)
    upcoming: asyncio.Task[EventBatch] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(batches))
            done, _ = await asyncio.wait([upcoming], timeout=KEEP_ALIVE_SECONDS)
            if not done:
                yield KEEP_ALIVE
                continue
            latest, upcoming = upcoming.result(), None
            for event in latest.events:
                yield message(event)
            if latest.ended is not None:
                yield format_sse_event(event="done", data_str=json.dumps({"status": latest.ended}))
                return
            if latest.lagged:
                return
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait([upcoming])
        await batches.aclose()  # type: ignore[attr-defined]  # an async generator


def message(event: JobEvent) -> bytes:
    data = FineTuningJobEvent.of(event).model_dump_json()
    return format_sse_event(id=event.id, event=event.type, data_str=data)
