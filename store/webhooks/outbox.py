"""The webhook outbox: the transaction that ends a job also inserts its deliveries. Nothing here commits.

Every function that ends a job calls ``job_ended``: both are committed, or neither.
"""

from __future__ import annotations

import json

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from store.ids import new_id
from store.job_status import TERMINAL, JobStatus
from store.tables.job import Job
from store.tables.webhook import WebhookDelivery, WebhookEndpoint

TYPES = {status: f"fine_tuning.job.{status}" for status in sorted(TERMINAL)}


def job_ended(session: Session, job_id: str) -> None:
    """Insert one delivery for each endpoint of the job's project that subscribes to this end.

    The caller has just written the job's terminal status; KeyError for a job that has not ended.
    """
    ended_at = func.extract("epoch", Job.finished_at)
    query = select(Job.project_id, Job.status, ended_at).where(Job.id == job_id)
    project_id, status, seconds = session.execute(query).one()
    event_type = TYPES[JobStatus(status)]
    endpoints = _subscribed(session, project_id, event_type)
    if not endpoints:
        return
    event_id = new_id("evt")
    body = _body(event_id, event_type, job_id, created_at=int(seconds))
    rows = [
        {
            "id": new_id("delivery"),
            "endpoint_id": endpoint_id,
            "event_id": event_id,
            "job_id": job_id,
            "type": event_type,
            "body": body,
        }
        for endpoint_id in endpoints
    ]
    session.execute(insert(WebhookDelivery), rows)


def _subscribed(session: Session, project_id: str, event_type: str) -> list[str]:
    """Locked against deletion, which would otherwise make the job's end fail for a missing endpoint."""
    query = select(WebhookEndpoint.id).where(
        WebhookEndpoint.project_id == project_id,
        WebhookEndpoint.disabled_at.is_(None),
        WebhookEndpoint.events.contains([event_type]),
    )
    return list(session.scalars(query.order_by(WebhookEndpoint.id).with_for_update(read=True, key_share=True)))


def _body(event_id: str, event_type: str, job_id: str, *, created_at: int) -> str:
    """OpenAI's event object."""
    event = {"id": event_id, "object": "event", "created_at": created_at, "type": event_type, "data": {"id": job_id}}
    return json.dumps(event, separators=(",", ":"))
