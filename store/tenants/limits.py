"""What a project may use: the deployment's limits, and in their place those that the operator gave the project."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from store.settings import Settings
from store.tables.base import Json


@dataclass(frozen=True)
class ProjectLimits:
    """None is no limit. ``queued_jobs`` counts every job that waits: for its files, for a worker, or paused.
    ``queued_files`` and ``running_files`` are of uploads that intake reads, ``queued_images`` and ``running_images`` of
    requests for images. ``pairs`` counts the rows of datasets, also of pairs that were removed.

    A key may send ``requests_burst`` requests at once, and from then on ``requests_per_minute``.
    """

    stored_bytes: int | None = None
    queued_jobs: int | None = None
    running_jobs: int | None = None
    uploads: int | None = None
    queued_files: int | None = None
    running_files: int | None = None
    queued_images: int | None = None
    running_images: int | None = None
    pairs: int | None = None
    requests_per_minute: int | None = None
    requests_burst: int = 1

    def with_own(self, own: Json) -> ProjectLimits:
        """``own``: a project's, by name; what it does not name stays as it is here."""
        return replace(self, **{name: value for name, value in own.items() if name in NAMES})


NAMES = tuple(field.name for field in fields(ProjectLimits))
UNLIMITED = ProjectLimits()


def defaults(settings: Settings) -> ProjectLimits:
    return ProjectLimits(
        stored_bytes=settings.quota_stored_bytes,
        queued_jobs=settings.quota_queued_jobs,
        running_jobs=settings.quota_running_jobs,
        uploads=settings.quota_uploads,
        queued_files=settings.quota_queued_files,
        running_files=settings.quota_running_files,
        queued_images=settings.quota_queued_images,
        running_images=settings.quota_running_images,
        pairs=settings.quota_pairs,
        requests_per_minute=settings.requests_per_minute,
        requests_burst=settings.requests_burst,
    )
