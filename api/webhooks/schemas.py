"""What clients see of a webhook and of its deliveries; secrets only where one is made."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors.example_ids import CREATED, DELIVERY, JOB, WEBHOOK
from api.http.paging import PageWithEnds, page_of
from store.tables import webhook

SENT: JsonDict = {
    "id": DELIVERY,
    "object": "webhook_endpoint.delivery",
    "webhook_id": WEBHOOK,
    "event_id": "evt-0198c1f2b0037c5d8e6f708192a3b4c5",
    "type": "fine_tuning.job.succeeded",
    "fine_tuning_job_id": JOB,
    "status": "pending",
    "attempts": 1,
    "created_at": CREATED + 300,
    "next_attempt_at": CREATED + 305,
    "delivered_at": None,
    "last_status": 503,
    "last_error": "The receiver answered 503.",
}
ENDPOINT: JsonDict = {
    "id": WEBHOOK,
    "object": "webhook_endpoint",
    "url": "https://example.com/pairtune",
    "events": ["fine_tuning.job.succeeded"],
    "created_at": 1764102000,
    "disabled_at": None,
}


class Webhook(BaseModel):
    model_config = ConfigDict(title="Webhook", json_schema_extra={"example": ENDPOINT})

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    events: list[str] = Field(description="The types that are sent.")
    created_at: int = Field(description="Unix seconds.")
    disabled_at: int | None = Field(description="Unix seconds: since when nothing is sent, as the receiver is gone.")

    @classmethod
    def of(cls, row: webhook.WebhookEndpoint) -> Self:
        return cls.model_validate(_fields(row))


class WebhookWithSecret(Webhook):
    model_config = ConfigDict(
        title="WebhookWithSecret",
        json_schema_extra={"example": ENDPOINT | {"secret_version": 1, "signing_secret": "whsec_..."}},
    )

    secret_version: int = Field(description="1 for the first secret; each rotation makes the next.")
    signing_secret: str = Field(description="Shown here and never again: `whsec_` and base64.")

    @classmethod
    def with_secret(cls, row: webhook.WebhookEndpoint, *, version: int, secret: str) -> Self:
        return cls.model_validate(_fields(row) | {"secret_version": version, "signing_secret": secret})


class WebhookList(PageWithEnds[Webhook]):
    model_config = ConfigDict(json_schema_extra=page_of(ENDPOINT, ends=True))


class WebhookDeleted(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": {"id": WEBHOOK, "object": "webhook_endpoint.deleted", "deleted": True}}
    )

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookDelivery(BaseModel):
    model_config = ConfigDict(
        title="WebhookDelivery",
        json_schema_extra={"example": SENT},
    )

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    webhook_id: str = Field(description="The endpoint's id.")
    event_id: str = Field(description="The event's `id`, and the header `webhook-id` of every attempt.")
    type: str
    fine_tuning_job_id: str
    status: Literal["pending", "delivered", "failed"] = Field(
        description="`pending` while it is or will be sent, `failed` when no attempt is left."
    )
    attempts: int = Field(description="Sendings begun.")
    created_at: int = Field(description="Unix seconds.")
    next_attempt_at: int | None = Field(description="Unix seconds; for a pending one.")
    delivered_at: int | None = Field(description="Unix seconds.")
    last_status: int | None = Field(description="The HTTP status of the last answer; null if there was none.")
    last_error: str | None = Field(description="Why the last attempt failed, with at most 1 KiB of the answer.")

    @classmethod
    def of(cls, row: webhook.WebhookDelivery) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "webhook_id": row.endpoint_id,
                "event_id": row.event_id,
                "type": row.type,
                "fine_tuning_job_id": row.job_id,
                "status": _status(row),
                "attempts": row.attempts,
                "created_at": int(row.created_at.timestamp()),
                "next_attempt_at": _seconds(row.next_attempt_at),
                "delivered_at": _seconds(row.delivered_at),
                "last_status": row.last_status,
                "last_error": row.last_error,
            }
        )


class WebhookDeliveryList(PageWithEnds[WebhookDelivery]):
    model_config = ConfigDict(json_schema_extra=page_of(SENT, ends=True))


def _fields(row: webhook.WebhookEndpoint) -> dict[str, object]:
    return {
        "id": row.id,
        "url": row.url,
        "events": row.events,
        "created_at": int(row.created_at.timestamp()),
        "disabled_at": _seconds(row.disabled_at),
    }


def _status(row: webhook.WebhookDelivery) -> str:
    """One that is sent once more is pending, although it was delivered before."""
    if row.next_attempt_at is not None:
        return "pending"
    return "failed" if row.delivered_at is None else "delivered"


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
