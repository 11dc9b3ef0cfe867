"""Hints that a worker publishes after the commit that queued a row again: the next attempt waits for no dispatcher.

A row whose hint is not sent, or not marked as sent, stays for the dispatcher.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from sqlalchemy.exc import OperationalError

from store import leases
from store.jobs import jobs
from store.turns import JOBS
from worker.resources import Resources

log = structlog.get_logger()


def publish_jobs(resources: Resources, job_ids: Sequence[str]) -> None:
    """Publish one hint for each job."""
    try:
        with resources.sessions() as session:
            needs = jobs.memory_needs(session, job_ids)
        sent = [job_id for job_id in job_ids if resources.hints.train(job_id, needs[job_id])]
        with resources.sessions.begin() as session:
            leases.mark_published(session, JOBS, sent)
    except OperationalError as error:
        log.warning("hint.database_unreachable", rows=list(job_ids), reason=str(error.orig))
