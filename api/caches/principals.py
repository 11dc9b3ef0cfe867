"""A cache of API keys' owners: a client that polls does not cost a query for each request."""

from __future__ import annotations

import hashlib
import time

from store.tenants.api_keys import Principal

# For this long a revoked key, or one with a new rate, still reads as before. Writes are never cached.
CACHE_SECONDS = 1.0
MAX_CACHED = 10_000


class Principals:
    """Owners of keys that were valid a moment ago, by the key's digest. Only the event loop's thread uses it."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Principal, float]] = {}

    def get(self, secret: str) -> Principal | None:
        principal, until = self._known.get(_digest(secret), (None, 0.0))
        return principal if time.monotonic() < until else None

    def remember(self, secret: str, principal: Principal, started_at: float) -> None:
        """``started_at``: when the query began, by time.monotonic()."""
        if len(self._known) >= MAX_CACHED:
            self._known.clear()
        self._known[_digest(secret)] = (principal, started_at + CACHE_SECONDS)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
