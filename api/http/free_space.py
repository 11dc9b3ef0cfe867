"""The check of free disk space, before any of a body is read."""

from __future__ import annotations

from api.dependencies import Injected
from api.errors.errors import DiskSpaceLow
from store.blobs import disk_space


def require_free_space(dependencies: Injected) -> None:
    """Raises DiskSpaceLow. It rejects parts of a pending upload too: they can wait, and a running job cannot."""
    found = disk_space.short(dependencies.settings, disk_space.of_the_api(dependencies.settings))
    if found:
        raise DiskSpaceLow(min(found.values()), dependencies.settings.min_free_bytes)
