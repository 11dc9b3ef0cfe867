"""Blobs that no row names go, long after they were written or last wanted.

Mark: old blobs, less what rows name, less what the lists of pairs name. Sweep: in small batches, each under the lock
that keeps writers from having such a blob named again (sweep_lock), with its age and its rows checked again.
A writer that finds its bytes stored already, but old, makes them young under the same lock; so a blob that is about to
be named is either young, or written again after the sweep. docs/decisions/0010-orphan-blobs.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import select

from migrations.revision import is_newer
from store.blobs import references, sweep_lock
from store.blobs.blobs import Blobs
from store.datasets import image_facts
from worker.resources import Resources

log = structlog.get_logger()

BATCH = 100  # blobs removed under one lock, which a writer may have to wait for


@dataclass(frozen=True)
class Swept:
    blobs: int
    bytes: int


def sweep(resources: Resources) -> Swept:
    """Raises BaseError, OSError or BlobMissing where the list is incomplete: then nothing, or no more, is removed.

    Memory: some 150 bytes for each blob that is older than the grace time. On a database that a newer version has
    migrated nothing is removed: it may name blobs in columns that this version does not know.
    """
    with resources.sessions() as session:
        if is_newer(session.connection()):
            log.warning("housekeeping.newer_database", hint="No blob is removed until the newer version runs again.")
            return Swept(0, 0)
    orphans = marked(resources)
    batches = [orphans[start : start + BATCH] for start in range(0, len(orphans), BATCH)]
    removed = [_remove(resources, batch) for batch in batches]
    return Swept(sum(one.blobs for one in removed), sum(one.bytes for one in removed))


def marked(resources: Resources) -> list[str]:
    """Old, and named by no row and no list of pairs."""
    grace = resources.settings.blob_grace_seconds
    old = set(resources.blobs.older_than(grace))
    if not old:
        return []
    with resources.sessions() as session:
        old -= references.all_named(session, grace_seconds=grace)
        lists = references.documents(session, grace_seconds=grace)
    for document in sorted(lists) if old else ():
        old.difference_update(_images(resources.blobs, document))
    return sorted(old)


def _images(blobs: Blobs, document: str) -> Iterator[str]:
    for line in blobs.read(document).splitlines():
        pair = json.loads(line)
        yield from (pair[side] for side in ("chosen", "rejected") if pair[side] is not None)


def _remove(resources: Resources, batch: Sequence[str]) -> Swept:
    grace = resources.settings.blob_grace_seconds
    with resources.sessions.begin() as session:
        sweep_lock.removing(session)
        wanted = references.named(session, batch, grace_seconds=grace)
        sizes: dict[str, int] = {}
        for sha256 in batch:
            session.execute(select(1))  # the lock is still ours: the server ends a transaction that stands still
            size = resources.blobs.remove_old(sha256, grace) if sha256 not in wanted else None
            if size is not None:
                sizes[sha256] = size
        image_facts.delete_facts(session, list(sizes))
    return Swept(len(sizes), sum(sizes.values()))
