"""Quotas: whether a project may use more. Nothing here commits.

A transaction that adds to what a quota counts locks the project's row from the check to its end, so that concurrent
ones cannot exceed the quota together. Ends and deletions need no such lock.
"""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from store.errors import QuotaExceeded
from store.job_status import JobStatus
from store.tables.job import Job
from store.tables.project import Project
from store.tenants import usage
from store.tenants.limits import ProjectLimits


def require_storage(session: Session, project_id: str, limits: ProjectLimits, size: int) -> None:
    """Check that ``size`` more bytes fit into the quota. Raises QuotaExceeded."""
    if limits.stored_bytes is not None:
        _lock(session, project_id)
        used = usage.stored_bytes(session, project_id)
        if used + size > limits.stored_bytes:
            raise storage_exceeded(limits.stored_bytes, used, size)


def storage_exceeded(limit: int, used: int, more: int) -> QuotaExceeded:
    remedy = "Delete files and datasets that are not needed"
    return QuotaExceeded("stored bytes", limit=limit, used=used, more=more, remedy=remedy)


def require_upload(session: Session, project_id: str, limits: ProjectLimits, size: int) -> None:
    """Check that one more upload in parts, and its ``size`` bytes, fit into the quota. Raises QuotaExceeded."""
    if limits.uploads is not None:
        _lock(session, project_id)
        used = usage.uploads(session, project_id).count
        _check("uploads in flight", limits.uploads, used, 1, "Complete or cancel one")
    require_storage(session, project_id, limits, size)


def require_waiting_job(session: Session, project_id: str, limits: ProjectLimits) -> None:
    """Check that one more waiting job fits into the quota. Raises QuotaExceeded."""
    if limits.queued_jobs is not None:
        _lock(session, project_id)
        used = usage.jobs_in(session, project_id, *usage.WAITING)
        _check("queued jobs", limits.queued_jobs, used, 1, "Wait until one has started, or cancel one")


def may_run(session: Session, job_id: str, defaults: ProjectLimits) -> bool:
    """Whether the project of this queued job may have one more running. Where there is a limit, none of its other jobs
    is claimed meanwhile."""
    of_job = select(Project.id, Project.limits).join(Job, Job.project_id == Project.id)
    project = session.execute(of_job.where(Job.id == job_id, Job.status == JobStatus.QUEUED)).one_or_none()
    if project is None:
        return False
    limit = defaults.with_own(project.limits).running_jobs
    if limit is None:
        return True
    _lock(session, project.id)
    return usage.jobs_in(session, project.id, JobStatus.RUNNING) < limit


def _lock(session: Session, project_id: str) -> None:
    session.execute(_locked(project_id))


def _locked(project_id: object) -> Select[str, dict[str, object]]:
    # Others may go on to insert rows that belong to the project.
    return select(Project.id, Project.limits).where(Project.id == project_id).with_for_update(key_share=True)


def _check(quota: str, limit: int, used: int, more: int, remedy: str) -> None:
    if used + more > limit:
        raise QuotaExceeded(quota, limit=limit, used=used, more=more, remedy=remedy)
