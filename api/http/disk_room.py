"""Whether there is room to begin something new; asked before any of a body is read."""

from __future__ import annotations

from api.dependencies import Opened
from api.errors.errors import LittleRoom
from store.blobs import disk_space


def has_room(backends: Opened) -> None:
    """Raises LittleRoom. Parts of an upload under way count as new: they can wait, and a running job cannot."""
    found = disk_space.short(backends.settings, disk_space.of_the_api(backends.settings))
    if found:
        raise LittleRoom(min(found.values()), backends.settings.min_free_bytes)
