"""The tables of webhooks: where events go, by which secrets they are signed, and what became of each delivery."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Table


class WebhookEndpoint(Table):
    """A URL that wants a project's events. ``events`` are the types it wants; a disabled one is sent nothing more."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    url: Mapped[str]
    events: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]


class WebhookSecret(Table):
    """That an endpoint has a secret of this number, not the secret: see store/webhooks/signing.py.

    ``key_check`` says which deployment key it is made from. The newest has no end.
    """

    __tablename__ = "webhook_secrets"

    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key_check: Mapped[str]
    expires_at: Mapped[datetime | None]


class WebhookDelivery(Table):
    """One event for one endpoint. ``body`` is what is sent, to the byte; ``attempts`` counts the sendings begun.

    ``next_attempt_at`` is when it is sent next, while it is being sent the time at which the sender is taken to be
    dead, and null when nothing more is to be done: it was delivered, or given up.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "endpoint_id", "id"),
        # A job ends once, so no endpoint receives two events about it.
        Index(None, "endpoint_id", "job_id", unique=True),
        Index(None, "job_id"),
        Index("ix_webhook_deliveries_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    event_id: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    type: Mapped[str]
    body: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
