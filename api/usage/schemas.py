"""What a project uses of what it may."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field


class Quota(BaseModel):
    limit: int | None = Field(description="Null: no limit.")
    used: int
    left: int | None = Field(description="At least 0; null where there is no limit.")

    @classmethod
    def of(cls, limit: int | None, used: int) -> Self:
        return cls(limit=limit, used=used, left=None if limit is None else max(limit - used, 0))


class Quotas(BaseModel):
    stored_bytes: Quota = Field(description="As the field `stored_bytes` of this answer.")
    queued_jobs: Quota = Field(description="Jobs that wait: `validating_files`, `queued` and `paused`.")
    running_jobs: Quota = Field(description="A job beyond it stays `queued` until another one has ended.")
    uploads: Quota = Field(description="Uploads in parts that are `pending`.")
    queued_files: Quota = Field(description="Uploaded files that wait to be read, and uploads in parts in flight.")
    running_files: Quota = Field(description="Uploaded files that are being read; others wait.")
    queued_images: Quota = Field(description="Requests for images that are `queued`.")
    running_images: Quota = Field(description="Requests for images that are `running`; others stay `queued`.")
    pairs: Quota = Field(description="Of datasets; removed ones count, and those of deleted datasets for some days.")


class RateLimit(BaseModel):
    requests_per_minute: int | None = Field(description="Of each key; null: no limit.")
    burst: int | None = Field(description="Requests that may come at once; null: no limit.")


class Usage(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "usage",
                "project_id": "proj-0198c1f2a3b47c5d8e6f708192a3b4c5",
                "stored_bytes": 52428800,
                "files": 12,
                "uploads": 0,
                "jobs": {
                    "validating_files": 0,
                    "queued": 1,
                    "running": 1,
                    "paused": 0,
                    "succeeded": 7,
                    "failed": 1,
                    "cancelled": 0,
                },
                "training_seconds": 8421.5,
                "quotas": {
                    "stored_bytes": {"limit": 1099511627776, "used": 52428800, "left": 1099459198976},
                    "queued_jobs": {"limit": 1000, "used": 1, "left": 999},
                    "running_jobs": {"limit": None, "used": 1, "left": None},
                    "uploads": {"limit": 100, "used": 0, "left": 100},
                    "queued_files": {"limit": 1000, "used": 0, "left": 1000},
                    "running_files": {"limit": None, "used": 1, "left": None},
                    "queued_images": {"limit": 100, "used": 2, "left": 98},
                    "running_images": {"limit": None, "used": 1, "left": None},
                    "pairs": {"limit": 2000000, "used": 1200, "left": 1998800},
                },
                "rate_limit": {"requests_per_minute": 1200, "burst": 300},
            }
        }
    )

    object: Literal["usage"] = "usage"
    project_id: str
    stored_bytes: int = Field(
        description="Of files that are not deleted, with the images of uploads as they are stored; of images sent with "
        "single pairs of datasets that are not deleted; of checkpoints and generated images; and of uploads in flight "
        "as declared."
    )
    files: int = Field(description="Uploaded and produced ones that are not deleted.")
    uploads: int = Field(description="Uploads in parts that are in flight.")
    jobs: dict[str, int] = Field(description="How many jobs are in each state; every state is named.")
    training_seconds: float = Field(description="That workers spent on the project's jobs, until now.")
    quotas: Quotas
    rate_limit: RateLimit
