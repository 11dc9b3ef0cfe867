"""An in-memory LRU of the cache entries read last, as tensors."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from trainer.cache.entry import Tensors


class RecentlyRead:
    """At most ``max_bytes`` of entries; the one used longest ago goes first. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[Tensors, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> Tensors | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: str, tensors: Tensors, size: int) -> None:
        with self._lock:
            self._drop(key)
            self._entries[key] = tensors, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: str) -> None:
        _, size = self._entries.pop(key, ({}, 0))
        self._bytes -= size
