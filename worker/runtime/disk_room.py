"""Whether this worker has room to begin a job or a file; what it leaves alone, the dispatcher offers again."""

from __future__ import annotations

import structlog

from store.blobs import disk_space
from worker.resources import Resources

log = structlog.get_logger()


def is_left(resources: Resources) -> bool:
    found = disk_space.short(resources.settings, disk_space.of_a_worker(resources.settings))
    if found:
        log.warning("worker.little_room", free_bytes=found, kept_bytes=resources.settings.min_free_bytes)
    return not found
