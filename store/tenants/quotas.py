"""Quotas: whether a project may use more. Nothing here commits.

A transaction that adds to what a quota counts locks the project's row from the check to its end, so that concurrent
ones cannot exceed the quota together. Ends and deletions need no such lock.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import QuotaExceeded
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
    require_waiting_file(session, project_id, limits)
    require_storage(session, project_id, limits, size)


def require_waiting_job(session: Session, project_id: str, limits: ProjectLimits) -> None:
    """Check that one more waiting job fits into the quota. Raises QuotaExceeded."""
    if limits.queued_jobs is not None:
        _lock(session, project_id)
        used = usage.jobs_in(session, project_id, *usage.WAITING)
        _check("queued jobs", limits.queued_jobs, used, 1, "Wait until one has started, or cancel one")


def require_waiting_file(session: Session, project_id: str, limits: ProjectLimits) -> None:
    """Check that one more upload that waits for intake fits into the quota. Raises QuotaExceeded.

    One in parts counts from its beginning, so that completing it never exceeds the quota.
    """
    if limits.queued_files is not None:
        _lock(session, project_id)
        used = usage.unread_files(session, project_id).queued + usage.uploads(session, project_id).count
        remedy = "Wait until one has been read, or delete one"
        _check("files that wait to be read, uploads in flight included", limits.queued_files, used, 1, remedy)


def require_waiting_generation(session: Session, project_id: str, limits: ProjectLimits) -> None:
    """Check that one more request for images that waits fits into the quota. Raises QuotaExceeded."""
    if limits.queued_images is not None:
        _lock(session, project_id)
        used = usage.generations(session, project_id).queued
        _check("queued requests for images", limits.queued_images, used, 1, "Wait until one has started, or cancel one")


def require_pairs(session: Session, project_id: str, limits: ProjectLimits, more: int) -> None:
    """Check that ``more`` pairs in datasets fit into the quota. Raises QuotaExceeded."""
    if limits.pairs is not None:
        _lock(session, project_id)
        used = usage.pairs(session, project_id)
        remedy = "Delete datasets; the pairs of a deleted one count until they are erased, some days later"
        _check("pairs in datasets", limits.pairs, used, more, remedy)


def _lock(session: Session, project_id: str) -> None:
    # Others may go on to insert rows that belong to the project.
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def _check(quota: str, limit: int, used: int, more: int, remedy: str) -> None:
    if used + more > limit:
        raise QuotaExceeded(quota, limit=limit, used=used, more=more, remedy=remedy)
