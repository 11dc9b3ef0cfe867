"""Uploads that were not completed in time end here, and the bytes of every ended upload's parts go."""

from __future__ import annotations

import structlog
from obstore.exceptions import BaseError

from store.blobs import upload_parts
from store.files import uploads
from worker.resources import Resources

log = structlog.get_logger()

# From checking that its upload is open to storing a part, a request needs far less, so that nothing comes after.
SWEEP_AFTER_SECONDS = 600.0


def clear(resources: Resources) -> None:
    """May run anywhere and any number of times. What the API removes by itself at the end of an upload is removed
    here again, for a process that was killed in between and a part that came in just then."""
    with resources.sessions.begin() as session:
        expired = uploads.expire(session)
        unswept = uploads.unswept(session, ended_before_seconds=SWEEP_AFTER_SECONDS)
    if expired:
        log.info("uploads.expired", uploads=expired)
    if _removed(resources, [*expired, *unswept]) and unswept:
        with resources.sessions.begin() as session:
            uploads.mark_swept(session, unswept)


def _removed(resources: Resources, upload_ids: list[str]) -> bool:
    """False when the blob store does not answer: what is not marked is tried again."""
    try:
        for upload_id in upload_ids:
            upload_parts.remove(resources.blobs.store, upload_id)
    except BaseError as error:
        log.warning("uploads.store_unreachable", reason=str(error))
        return False
    return True
