"""Whose key it is, remembered for a moment: the key of a client that polls is not looked up each time."""

from __future__ import annotations

import hashlib
import time

from store.tenants.api_keys import Principal

# For so long a key that is revoked, or given another rate, still reads as before; it changes nothing any more.
KNOWN_SECONDS = 1.0
MAX_REMEMBERED = 10_000


class Principals:
    """Of keys that were valid a moment ago, by their digest; one thread uses it, the event loop's."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Principal, float]] = {}

    def known(self, secret: str) -> Principal | None:
        principal, until = self._known.get(_digest(secret), (None, 0.0))
        return principal if time.monotonic() < until else None

    def remember(self, secret: str, principal: Principal, looked_up_at: float) -> None:
        """``looked_up_at``: when the look-up began, by time.monotonic()."""
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[_digest(secret)] = (principal, looked_up_at + KNOWN_SECONDS)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
