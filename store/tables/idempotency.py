"""The table of idempotency keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table


class IdempotencyKey(Table):
    """One create that a client named. ``request`` identifies the operation and its body, ``answer`` is its body."""

    __tablename__ = "idempotency_keys"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    answer: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
