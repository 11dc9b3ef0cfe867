"""Webhook endpoints and the numbers of their secrets. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from store import pagination
from store.errors import TooManyWebhooks, WebhookNotFound
from store.ids import new_id
from store.tables.project import Project
from store.tables.webhook import WebhookEndpoint, WebhookSecret

MAX_ENDPOINTS = 16  # a project; each end of a job is sent to all of them
MAX_SECRETS = 8  # at once; beyond that the oldest goes before its time, so that the header stays short
OVERLAP = timedelta(hours=24)


def create(session: Session, project_id: str, *, url: str, events: Sequence[str], key_check: str) -> WebhookEndpoint:
    """With its first secret, number 1."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
    query = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if session.scalars(query).one() >= MAX_ENDPOINTS:
        raise TooManyWebhooks(MAX_ENDPOINTS)
    endpoint = WebhookEndpoint(id=new_id("webhook"), project_id=project_id, url=url, events=list(events))
    session.add(endpoint)
    session.flush()
    session.refresh(endpoint)
    _add_secret(session, endpoint.id, 1, key_check)
    return endpoint


def get(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint:
    return _found(session, _one(project_id, endpoint_id), endpoint_id)


def newest_first(session: Session, project_id: str, *, after: str | None, limit: int) -> list[WebhookEndpoint]:
    """Beyond the webhook ``after``. Raises CursorUnknown."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    query = query.order_by(WebhookEndpoint.id.desc()).limit(limit)
    if after is not None:
        pagination.position(session, _one(project_id, after).with_only_columns(WebhookEndpoint.id), after)
        query = query.where(WebhookEndpoint.id < after)
    return list(session.scalars(query))


def remove(session: Session, project_id: str, endpoint_id: str) -> None:
    """The endpoint, its secrets' rows and its deliveries."""
    deleted = delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id)
    if session.scalar(deleted.returning(WebhookEndpoint.id)) is None:
        raise WebhookNotFound(endpoint_id)


def rotate(session: Session, project_id: str, endpoint_id: str, *, key_check: str) -> tuple[WebhookEndpoint, int]:
    """The number of a new secret; those before it stay valid for OVERLAP from the moment they were replaced."""
    endpoint = _found(session, _one(project_id, endpoint_id).with_for_update(key_share=True), endpoint_id)
    mine = WebhookSecret.endpoint_id == endpoint_id
    version = session.scalars(select(func.max(WebhookSecret.version)).where(mine)).one() + 1
    ends = func.clock_timestamp() + OVERLAP
    session.execute(update(WebhookSecret).where(mine, WebhookSecret.expires_at.is_(None)).values(expires_at=ends))
    over = or_(WebhookSecret.expires_at <= func.clock_timestamp(), WebhookSecret.version <= version - MAX_SECRETS)
    session.execute(delete(WebhookSecret).where(mine, over))
    _add_secret(session, endpoint_id, version, key_check)
    return endpoint, version


def disable(session: Session, endpoint_id: str) -> None:
    session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.disabled_at.is_(None))
        .values(disabled_at=func.clock_timestamp())
    )


def valid_secrets(session: Session, endpoint_id: str, *, key_check: str) -> list[int]:
    """Numbers of the secrets to sign with, newest first, of those that this deployment key makes."""
    query = select(WebhookSecret.version).where(
        WebhookSecret.endpoint_id == endpoint_id,
        WebhookSecret.key_check == key_check,
        or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > func.clock_timestamp()),
    )
    return list(session.scalars(query.order_by(WebhookSecret.version.desc())))


def _add_secret(session: Session, endpoint_id: str, version: int, key_check: str) -> None:
    session.add(WebhookSecret(endpoint_id=endpoint_id, version=version, key_check=key_check))
    session.flush()


def _one(project_id: str, endpoint_id: str) -> Select[WebhookEndpoint]:
    return select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id)


def _found(session: Session, query: Select[WebhookEndpoint], endpoint_id: str) -> WebhookEndpoint:
    endpoint = session.scalar(query)
    if endpoint is None:
        raise WebhookNotFound(endpoint_id)
    return endpoint
