"""The rules of webhooks."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.http.idempotency import OmittedField
from api.http.paging import cut
from api.http.transactions import UnitOfWork
from api.webhooks.request import EVERY_EVENT, CreateWebhook
from api.webhooks.schemas import (
    Webhook,
    WebhookDeleted,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookList,
    WebhookWithSecret,
)
from store.settings import Settings
from store.tables import webhook
from store.tables.base import Json
from store.tenants import audit
from store.tenants.audit import Actor
from store.webhooks import delivery_log, endpoints
from store.webhooks.signing import SigningKey, shown, signing_key


def secret_of(settings: Settings) -> OmittedField:
    """The secret of an answer, which is made again when the answer is repeated: it is not stored."""
    return OmittedField("signing_secret", lambda answer: _secret(signing_key(settings), answer))


def create(
    work: UnitOfWork, settings: Settings, by: Actor, project_id: str, request: CreateWebhook
) -> WebhookWithSecret:
    key = signing_key(settings)
    events = request.events or EVERY_EVENT
    row = endpoints.create(work.session, project_id, url=request.url, events=events, key_check=key.check)
    audit.record(work.session, by, "webhook.created", row.id, {"url": request.url})
    return _with_secret(key, row, 1)


def rotate(work: UnitOfWork, settings: Settings, by: Actor, project_id: str, webhook_id: str) -> WebhookWithSecret:
    key = signing_key(settings)
    row, version = endpoints.rotate(work.session, project_id, webhook_id, key_check=key.check)
    audit.record(work.session, by, "webhook.rotated", webhook_id, {"secret_version": version})
    return _with_secret(key, row, version)


def page(session: Session, project_id: str, *, after: str | None, limit: int) -> WebhookList:
    rows, has_more = cut(endpoints.newest_first(session, project_id, after=after, limit=limit + 1), limit)
    data = [Webhook.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return WebhookList(data=data, has_more=has_more, first_id=first, last_id=last)


def delete(session: Session, project_id: str, webhook_id: str) -> WebhookDeleted:
    endpoints.remove(session, project_id, webhook_id)
    return WebhookDeleted(id=webhook_id)


def deliveries(
    session: Session, project_id: str, webhook_id: str, *, after: str | None, limit: int
) -> WebhookDeliveryList:
    endpoints.get(session, project_id, webhook_id)
    rows, has_more = cut(delivery_log.newest_first(session, webhook_id, after=after, limit=limit + 1), limit)
    data = [WebhookDelivery.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return WebhookDeliveryList(data=data, has_more=has_more, first_id=first, last_id=last)


def retry(session: Session, project_id: str, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    endpoint = endpoints.get(session, project_id, webhook_id)
    return WebhookDelivery.of(delivery_log.retry(session, endpoint, delivery_id))


def _with_secret(key: SigningKey, row: webhook.WebhookEndpoint, version: int) -> WebhookWithSecret:
    secret = _secret(key, {"id": row.id, "secret_version": version})
    return WebhookWithSecret.with_secret(row, version=version, secret=secret)


def _secret(key: SigningKey, answer: Json) -> str:
    return shown(key.secret(answer["id"], answer["secret_version"]))
