"""The table of the audit log."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table

NEW_ADDRESS = "key.used_from_new_address"


class AuditEntry(Table):
    """Who did what, and when. ``subject`` is the id of what it was done to.

    The actor is an API key or an operator at the command line. No foreign keys: an entry outlives what it names.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index(None, "project_id", "id"),
        Index(
            "ix_audit_entries_addresses",
            "key_id",
            "address",
            unique=True,
            postgresql_where=text(f"action = '{NEW_ADDRESS}'"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    action: Mapped[str]
    subject: Mapped[str]
    project_id: Mapped[str | None]
    key_id: Mapped[str | None]
    operator: Mapped[str | None]
    address: Mapped[str | None]
    details: Mapped[Json] = mapped_column(server_default=text("'{}'"))
