"""The tables of operators' signals that no other row holds."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Table


class Counter(Table):
    """How often something happened since the installation. The figure is the sum over ``slot``: as many rows as there
    ever were transactions at once, so that none waits for another."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Heartbeat(Table):
    """When a loop of which one instance acts was last round."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
