"""The columns by which one worker at a time owns a row: see store/leases.py."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column


class Leased:
    """A mixin. ``attempt`` counts the claims of the row and is the fencing token: every write of a worker names it.

    Of the attempts, ``crashes`` broke off by themselves. ``lease_expires_at`` is null while no worker owns the row.
    ``published_at`` is when the latest hint to workers was sent; null if none was sent since the row was queued.
    """

    id: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    lease_expires_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
