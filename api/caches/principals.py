"""A cache of API keys' owners: a client that polls does not cost a query for each request."""

from __future__ import annotations

import hashlib
import time

from store.tenants.api_keys import Principal

# For this long a revoked key, or one with a new rate, still reads as before. Writes are never cached.
CACHE_SECONDS = 1.0
VALID_SECONDS = 600.0  # for so long a key that was valid is not counted by its address
MAX_CACHED = 10_000


class Principals:
    """Owners of keys that were valid a moment ago, by the key's digest. Only the event loop's thread uses it."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._valid: dict[bytes, float] = {}

    def get(self, secret: str) -> Principal | None:
        principal, until = self._known.get(_digest(secret), (None, 0.0))
        return principal if time.monotonic() < until else None

    def remember(self, secret: str, principal: Principal, started_at: float) -> None:
        """``started_at``: when the query began, by time.monotonic()."""
        if len(self._known) >= MAX_CACHED:
            self._known.clear()
            self._valid.clear()
        digest = _digest(secret)
        self._known[digest] = (principal, started_at + CACHE_SECONDS)
        self._valid[digest] = started_at + VALID_SECONDS

    def was_valid(self, secret: str) -> bool:
        """Whether the key was valid in this process in the last minutes, and was not refused since."""
        return time.monotonic() < self._valid.get(_digest(secret), 0.0)

    def forget(self, secret: str) -> None:
        self._known.pop(_digest(secret), None)
        self._valid.pop(_digest(secret), None)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
