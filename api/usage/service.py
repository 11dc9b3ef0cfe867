"""A project's use of the service, as it is now."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.usage.schemas import Quota, Quotas, RateLimit, Usage
from store.job_status import JobStatus
from store.tenants import usage
from store.tenants.api_keys import Principal
from store.tenants.limits import ProjectLimits


def now(session: Session, caller: Principal) -> Usage:
    files, uploads = usage.files(session, caller.project_id), usage.uploads(session, caller.project_id)
    training = usage.training(session, caller.project_id)
    unread, images = usage.unread_files(session, caller.project_id), usage.generations(session, caller.project_id)
    limits, stored = caller.limits, usage.stored_bytes(session, caller.project_id)
    waiting = sum(training.jobs[status] for status in usage.WAITING)
    return Usage(
        project_id=caller.project_id,
        stored_bytes=stored,
        files=files.count,
        uploads=uploads.count,
        jobs={str(status): count for status, count in training.jobs.items()},
        training_seconds=round(training.seconds, 3),
        quotas=Quotas(
            stored_bytes=Quota.of(limits.stored_bytes, stored),
            queued_jobs=Quota.of(limits.queued_jobs, waiting),
            running_jobs=Quota.of(limits.running_jobs, training.jobs[JobStatus.RUNNING]),
            uploads=Quota.of(limits.uploads, uploads.count),
            queued_files=Quota.of(limits.queued_files, unread.queued + uploads.count),
            running_files=Quota.of(limits.running_files, unread.running),
            queued_images=Quota.of(limits.queued_images, images.queued),
            running_images=Quota.of(limits.running_images, images.running),
            pairs=Quota.of(limits.pairs, usage.pairs(session, caller.project_id)),
        ),
        rate_limit=_rate(limits),
    )


def _rate(limits: ProjectLimits) -> RateLimit:
    burst = None if limits.requests_per_minute is None else limits.requests_burst
    return RateLimit(requests_per_minute=limits.requests_per_minute, burst=burst)
