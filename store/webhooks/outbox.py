"""Webhook deliveries come into being here, in the transaction that ends their job: both are committed or neither."""

from __future__ import annotations

import json

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store.ids import new_id
from store.job_status import TERMINAL, JobStatus
from store.tables.job import Job
from store.tables.webhook import WebhookDelivery, WebhookEndpoint

TYPES = {status: f"fine_tuning.job.{status}" for status in sorted(TERMINAL)}


def job_ended(session: Session, job_id: str, status: JobStatus) -> None:
    """One delivery for each endpoint of the job's project that wants to hear of it.

    The row's own status is looked at, so that no event of a job that goes on can tell of its end.
    """
    query = select(Job.project_id, Job.finished_at).where(Job.id == job_id, Job.status == status)
    ended = session.execute(query).one_or_none()
    if ended is None or ended.finished_at is None:
        return
    endpoints = _listening(session, ended.project_id, TYPES[status])
    if not endpoints:
        return
    event_id = new_id("evt")
    body = _body(event_id, TYPES[status], job_id, created_at=int(ended.finished_at.timestamp()))
    rows = [
        {
            "id": new_id("delivery"),
            "endpoint_id": endpoint_id,
            "event_id": event_id,
            "job_id": job_id,
            "type": TYPES[status],
            "body": body,
        }
        for endpoint_id in endpoints
    ]
    session.execute(insert(WebhookDelivery), rows)


def _listening(session: Session, project_id: str, event_type: str) -> list[str]:
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
