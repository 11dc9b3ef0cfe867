"""The requests of a webhook: some kinds of events, sent to a URL."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError
from api.errors.validated import validated
from store.errors import WebhookUrlNotAllowed
from store.settings import Settings
from store.webhooks.egress import LONGEST, addresses
from store.webhooks.egress import parse as parse_target

EventType = Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
EVERY_EVENT: tuple[EventType, ...] = (
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
)


class CreateWebhook(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "example": {"url": "https://example.com/pairtune", "events": ["fine_tuning.job.succeeded"]},
        },
    )

    url: Annotated[str, Field(min_length=1, max_length=LONGEST)] = Field(
        description="`https://`, of a host whose addresses are all public."
    )
    events: Annotated[list[EventType], Field(min_length=1, max_length=len(EVERY_EVENT))] | None = Field(
        None, description="All of them without it."
    )

    @field_validator("events")
    @classmethod
    def _once(cls, given: list[EventType] | None) -> list[EventType] | None:
        if given is not None and len(set(given)) < len(given):
            raise ValueError("should name each event once")
        return given


def parse(document: dict[str, object], settings: Settings) -> CreateWebhook:
    """Raise InvalidRequest with every error; the URL's host is resolved, which may take seconds."""
    request = validated(document, CreateWebhook)
    try:
        addresses(parse_target(request.url, settings), settings)
    except WebhookUrlNotAllowed as error:
        raise InvalidRequest([FieldError("url", f"url: {error.reason}.", "url_refused")]) from error
    return request
