"""/v1/webhooks."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api.audit.actor import By
from api.dependencies import Caller, Injected
from api.errors.responses import BODY, ONCE, failures
from api.http.idempotency import IdempotencyKey, once
from api.http.json_body import ParsedBody
from api.http.paging import After
from api.http.route_rules import requires
from api.http.transactions import transaction
from api.webhooks import service
from api.webhooks.request import CreateWebhook, parse
from api.webhooks.schemas import (
    Webhook,
    WebhookDeleted,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookList,
    WebhookWithSecret,
)
from store.errors import CursorUnknown, DeliveryNotFound, TooManyWebhooks, WebhookDisabled, WebhookNotFound
from store.roles import Role
from store.tenants import audit
from store.webhooks import endpoints

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
CREATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{CreateWebhook.__name__}"}}},
    }
}


@router.post(
    "",
    operation_id="createWebhook",
    response_model=WebhookWithSecret,
    responses=failures(*BODY, *ONCE, TooManyWebhooks),
    openapi_extra=CREATE_BODY,
)
@requires(Role.ADMIN)
def create_webhook(
    body: ParsedBody, caller: Caller, by: By, dependencies: Injected, idempotency_key: IdempotencyKey = None
) -> WebhookWithSecret | JSONResponse:
    """Have the project's events sent to a URL. The answer alone holds the signing secret. An addition."""
    request = parse(body.document, dependencies.settings)  # before the transaction: it resolves the URL's host
    omitted = service.secret_of(dependencies.settings)
    with transaction(dependencies) as work:
        create = partial(service.create, work, dependencies.settings, by, caller.project_id, request)
        return once(work, caller, idempotency_key, "createWebhook", body.sha256, create, omitted)


@router.get("", operation_id="listWebhooks", responses=failures(CursorUnknown))
@requires(Role.READ_ONLY)
def list_webhooks(
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> WebhookList:
    """The project's webhooks, newest first, without their secrets. An addition."""
    with transaction(dependencies) as work:
        return service.page(work.session, caller.project_id, after=after, limit=limit)


@router.get("/{webhook_id}", operation_id="retrieveWebhook", responses=failures(WebhookNotFound))
@requires(Role.READ_ONLY)
def retrieve_webhook(webhook_id: str, caller: Caller, dependencies: Injected) -> Webhook:
    """One webhook, without its secret. An addition."""
    with transaction(dependencies) as work:
        return Webhook.of(endpoints.get(work.session, caller.project_id, webhook_id))


@router.delete("/{webhook_id}", operation_id="deleteWebhook", responses=failures(WebhookNotFound))
@requires(Role.ADMIN)
def delete_webhook(webhook_id: str, caller: Caller, by: By, dependencies: Injected) -> WebhookDeleted:
    """Delete a webhook and its log; what was not sent yet is not sent. An addition."""
    with transaction(dependencies) as work:
        audit.record(work.session, by, "webhook.deleted", webhook_id)
        return service.delete(work.session, caller.project_id, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    operation_id="rotateWebhook",
    response_model=WebhookWithSecret,
    responses=failures(*ONCE, WebhookNotFound),
)
@requires(Role.ADMIN)
def rotate_webhook(
    webhook_id: str, caller: Caller, by: By, dependencies: Injected, idempotency_key: IdempotencyKey = None
) -> WebhookWithSecret | JSONResponse:
    """Make a new signing secret. For 24 hours every delivery is signed by the old one too. An addition."""
    omitted = service.secret_of(dependencies.settings)
    with transaction(dependencies) as work:
        rotate = partial(service.rotate, work, dependencies.settings, by, caller.project_id, webhook_id)
        return once(work, caller, idempotency_key, "rotateWebhook", webhook_id, rotate, omitted)


@router.get(
    "/{webhook_id}/deliveries", operation_id="listWebhookDeliveries", responses=failures(CursorUnknown, WebhookNotFound)
)
@requires(Role.READ_ONLY)
def list_webhook_deliveries(
    webhook_id: str,
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> WebhookDeliveryList:
    """What was sent, newest first, and what the receiver answered; stored for 30 days. An addition."""
    with transaction(dependencies) as work:
        return service.deliveries(work.session, caller.project_id, webhook_id, after=after, limit=limit)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/retry",
    operation_id="retryWebhookDelivery",
    responses=failures(WebhookNotFound, DeliveryNotFound, WebhookDisabled),
)
@requires(Role.ADMIN)
def retry_webhook_delivery(
    webhook_id: str, delivery_id: str, caller: Caller, dependencies: Injected
) -> WebhookDelivery:
    """Send a delivery again at once, whatever became of it. An addition."""
    with transaction(dependencies) as work:
        return service.retry(work.session, caller.project_id, webhook_id, delivery_id)
