"""The check of free disk space before a worker claims a row; the dispatcher offers a row again that is left queued."""

from __future__ import annotations

import structlog

from store.blobs import disk_space as free_space
from worker.resources import Resources

log = structlog.get_logger()


def is_enough(resources: Resources) -> bool:
    """Whether every directory that a worker writes to has ``min_free_bytes`` left."""
    found = free_space.short(resources.settings, free_space.of_a_worker(resources.settings))
    if found:
        log.warning("worker.low_disk_space", free_bytes=found, min_free_bytes=resources.settings.min_free_bytes)
    return not found
