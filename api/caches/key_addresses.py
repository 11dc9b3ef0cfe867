"""A cache of the addresses that keys were used from, so that only a new one costs a query."""

from __future__ import annotations

MAX_CACHED = 100_000


class KeyAddresses:
    """Pairs of a key's id and a client's network. Only the event loop's thread uses it."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def is_known(self, key_id: str, network: str) -> bool:
        return (key_id, network) in self._known

    def remember(self, key_id: str, network: str) -> None:
        if len(self._known) >= MAX_CACHED:
            self._known.clear()
        self._known.add((key_id, network))
