"""Deployment settings: the only reader of the environment. Every variable is ``PAIRTUNE_`` and the field's name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent  # where the packages lie: a checkout, or site-packages
SHIPPED_BASES = Path(__file__).resolve().with_name("bases.toml")
PREFIX = "PAIRTUNE_"
OF_COMPOSE = frozenset({"PAIRTUNE_GPU"})  # docker-compose.yml reads it
DAY, YEAR = 24 * 3600.0, 365 * 24 * 3600.0  # seconds


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_parse_none_str="none", frozen=True, allow_inf_nan=False)

    home: Path = Field(
        Path("var"), description="Directory of local state: embedded services, blobs, work directories, `local.key`."
    )
    host: str = Field("127.0.0.1", description="Address that the API of `pairtune up` listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port that the API of `pairtune up` listens on.")
    api_processes: int = Field(
        1, ge=1, le=64, description="Processes of the API, which share its port; each needs memory of its own."
    )
    max_connections: int = Field(
        1000,
        ge=10,
        description="Maximum number of open connections of one API process; the one that has waited longest for a "
        "request is closed for a new one.",
    )
    head_seconds: float = Field(
        20.0, gt=0, description="Seconds within which the head of a request must arrive; else the connection is closed."
    )
    url: str | None = Field(
        None,
        description="URL of the API, for links in answers and for the command line, which else takes HOST and PORT.",
    )
    api_key: str | None = Field(None, description="API key of the command line; `local.key` in HOME if not set.")
    database_url: str | None = Field(
        None, description="`postgresql+psycopg://...`; `pairtune up` starts its own PostgreSQL if not set."
    )
    broker_url: str | None = Field(None, description="`redis://...`; `pairtune up` starts its own Valkey if not set.")
    blob_url: str | None = Field(
        None, description="`file://`, `s3://`, `gs://` or `az://`; `blobs` in HOME if not set."
    )
    redirect_downloads: bool = Field(
        True,
        description="Whether the API redirects downloads to S3; otherwise it sends the bytes itself.",
    )
    bases_file: Path = Field(SHIPPED_BASES, description="File that lists the base models.")
    dinov2: Path | None = Field(
        None, description="Directory with a DINOv2 in safetensors, to measure the reference mismatch with."
    )
    cache_bytes: int = Field(
        50 * 2**30, ge=0, description="Maximum size of a worker's cache of encoded images and prompts."
    )
    max_upload_bytes: int = Field(
        20 * 2**30, ge=1, description="Maximum size of an upload; a larger one is answered 413."
    )

    min_free_bytes: int = Field(
        2**30,
        ge=0,
        description="Free space below which a process starts nothing new: uploads and jobs are answered 507, "
        "workers claim nothing.",
    )

    checkpoint_days: float = Field(
        14.0, ge=0, description="Days after a job's end for which the files of all its checkpoints are stored."
    )
    failed_checkpoint_days: float = Field(
        1.0, ge=0, description="As PAIRTUNE_CHECKPOINT_DAYS, for jobs that failed or were cancelled."
    )
    checkpoints_kept: int = Field(
        5,
        ge=1,
        description="Number of a running job's latest checkpoints whose files are stored, besides the best one.",
    )
    deleted_days: float = Field(
        1.0,
        ge=0,
        description="Days after which rows of deleted files, datasets, jobs and image generations are erased, with "
        "their prompts.",
    )
    audit_days: float = Field(365.0, ge=0, description="Days for which the entries of the audit log are stored.")
    blob_grace_seconds: float = Field(
        24 * 3600.0,
        ge=2 * 3600.0,  # twice Blobs' RENEWED_AFTER: from storing bytes to naming them in a row a writer has the rest
        description="Seconds before a sweep may delete a blob that no row names, or whose row was deleted.",
    )
    sweep_seconds: float = Field(
        6 * 3600.0, gt=0, description="Seconds between two sweeps of old checkpoints and blobs."
    )

    cors_origins: str = Field(
        "",
        description="Web origins whose pages may call the API, separated by spaces.",
    )

    upload_seconds: float = Field(
        24 * 3600.0, gt=0, description="Seconds within which an upload in parts must be completed."
    )
    upload_idle_seconds: float = Field(
        60.0, gt=0, description="Seconds without data of a body after which the server disconnects the client (408)."
    )

    upload_bytes_per_second: int = Field(
        4096,
        ge=0,
        description="Least rate of a body over PAIRTUNE_UPLOAD_IDLE_SECONDS; a slower client is disconnected (408).",
    )
    upload_limit_seconds: float = Field(
        6 * 3600.0, gt=0, description="Seconds within which the whole body of a request must arrive (408)."
    )
    download_idle_seconds: float = Field(
        60.0, gt=0, description="Seconds without reading any of an answer after which the client is disconnected."
    )

    # A project's quotas and its keys' rate, where `pairtune projects set` gives it none of its own; `none`: no limit.
    quota_stored_bytes: int | None = Field(
        2**40, ge=0, description="Maximum bytes of a project's files and of its uploads in flight."
    )
    quota_queued_jobs: int | None = Field(
        1000, ge=0, description="Maximum number of a project's jobs that wait for files or for a worker, or are paused."
    )
    quota_running_jobs: int | None = Field(
        None, ge=0, description="Maximum number of a project's jobs that run at the same time."
    )
    quota_uploads: int | None = Field(
        100, ge=0, description="Maximum number of a project's uploads in parts in flight."
    )
    quota_queued_files: int | None = Field(
        1000, ge=0, description="Maximum number of a project's uploaded files that wait to be read."
    )
    quota_running_files: int | None = Field(
        None, ge=1, description="Maximum number of a project's uploaded files that are read at the same time."
    )
    quota_queued_images: int | None = Field(
        100, ge=0, description="Maximum number of a project's requests for images that wait for a worker."
    )
    quota_running_images: int | None = Field(
        None, ge=1, description="Maximum number of a project's requests for images that run at the same time."
    )
    quota_pairs: int | None = Field(
        2_000_000,
        ge=0,
        description="Maximum number of pairs in a project's datasets, removed pairs and those of datasets that were "
        "deleted within PAIRTUNE_DELETED_DAYS included.",
    )
    requests_per_minute: int | None = Field(
        1200,
        ge=1,
        le=60_000_000,
        description="Requests per minute of one API key; `pairtune up` on a loopback address has no limit.",
    )
    requests_burst: int = Field(300, ge=1, le=1_000_000, description="Requests of one API key at once.")
    requests_at_once: int = Field(
        200,
        ge=1,
        description="Maximum number of open requests of one project in an API process, transfers and streams included.",
    )
    streams: int = Field(50, ge=0, description="Maximum number of open event streams of one API key.")
    anonymous_per_minute: int | None = Field(
        600,
        ge=1,
        le=60_000_000,
        description="Requests per minute of one address without a valid API key; `pairtune up` on a loopback address "
        "has no limit.",
    )
    images_wait_seconds: float = Field(
        120.0, gt=0, description="Seconds that a request for images waits before it is answered 503 or 504."
    )
    images_limit_seconds: float = Field(
        600.0, gt=0, description="Seconds after which generating the images of one request is ended."
    )

    webhooks_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Key that webhook signing secrets are derived from, the same for all services; `webhooks.key` in "
        "HOME if not set.",
    )
    webhooks_allow_http: bool = Field(False, description="Whether webhooks may use `http://` URLs.")
    webhooks_allow_private: bool = Field(
        False, description="Whether webhooks may go to private and loopback addresses, this network's own services."
    )
    webhooks_timeout_seconds: float = Field(
        10.0, gt=0, description="Seconds that a webhook receiver may take, from connecting to its answer."
    )

    worker_memory_gib: int | None = Field(
        None,
        ge=1,
        description="GiB of device memory of this training worker: it claims no job that needs more. If not set, it "
        "claims any job.",
    )

    intake_memory_bytes: int = Field(
        4 * 2**30, ge=2**26, description="Memory that reading one upload may use in an intake worker."
    )
    intake_limit_seconds: float = Field(
        4 * 3600.0, gt=0, description="Seconds after which reading one upload is ended."
    )
    intake_pixels: int = Field(
        100_000_000_000, ge=1, description="Maximum number of pixels of all images of one upload together."
    )

    # Times in seconds. A worker is given up after `lease`; three missed heartbeats fit into it with time to spare.
    lease_seconds: float = Field(
        60.0, gt=0, le=DAY, description="Seconds after which a worker loses a lease that it does not renew."
    )
    heartbeat_seconds: float = Field(10.0, gt=0, le=DAY, description="Seconds between two renewals of a lease.")
    dispatch_seconds: float = Field(
        10.0, gt=0, le=DAY, description="Seconds between two rounds of the dispatcher, which finds expired leases."
    )
    republish_seconds: float = Field(
        30.0,
        gt=0,
        le=DAY,
        description="Age in seconds at which the dispatcher publishes an unclaimed row's hint again.",
    )
    grace_seconds: float = Field(
        60.0, ge=0, le=DAY, description="Seconds from SIGTERM to SIGKILL of a trainer, in which it saves a checkpoint."
    )
    stall_seconds: float = Field(
        1800.0, gt=0, le=YEAR, description="Seconds without output after which a trainer counts as hung."
    )
    crash_cap: int = Field(
        3, ge=1, le=1000, description="Number of crashes after which a job or file fails and is not tried again."
    )

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError(
                f"PAIRTUNE_HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) should be less than PAIRTUNE_LEASE_SECONDS "
                f"({self.lease_seconds:g}); a third of it or less is best"
            )
        return self

    @property
    def required_database_url(self) -> str:
        if self.database_url is None:
            raise MissingSetting("PAIRTUNE_DATABASE_URL")
        return self.database_url

    @property
    def required_broker_url(self) -> str:
        if self.broker_url is None:
            raise MissingSetting("PAIRTUNE_BROKER_URL")
        return self.broker_url

    @property
    def effective_url(self) -> str:
        return (self.url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def effective_blob_url(self) -> str:
        return self.blob_url or f"file://{self.home.resolve() / 'blobs'}"

    @property
    def upload_directory(self) -> Path:
        """Where the API streams uploads to before they become blobs: local, disposable."""
        return self.home.resolve() / "uploads"

    @property
    def work_directory(self) -> Path:
        """Where workers keep run directories and the trainer's cache: local, disposable."""
        return self.home.resolve() / "work"


class SettingsError(SystemExit):
    """The process cannot start; its only output is the text, which says what to change."""


class MissingSetting(SettingsError):
    def __init__(self, variable: str) -> None:
        super().__init__(f"{variable} is not set: start through `pairtune up`, or set it to your own service.")


class InvalidSettings(SettingsError):
    """``errors``: a line for each variable."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@cache
def settings() -> Settings:
    """The process's settings, read once. Raises InvalidSettings, with every error."""
    errors = list(_unknown(os.environ))
    try:
        found = Settings()
    except ValidationError as error:
        errors += [_described(one["loc"], one["msg"]) for one in error.errors()]
    if errors:
        raise InvalidSettings(errors)
    return found


def _unknown(names: Iterable[str]) -> Iterator[str]:
    """A misspelt variable would otherwise leave a default in force, unnoticed."""
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields} | OF_COMPOSE
    for name in sorted(name for name in names if name.upper().startswith(PREFIX)):
        if name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            yield f"{name}: there is no such setting{f'; did you mean {close[0]}?' if close else '.'}"


def _described(location: tuple[int | str, ...], message: str) -> str:
    """``message`` is pydantic's, which repeats no value; an error of several variables names them itself."""
    text = f"{message.removeprefix('Value error, ').removesuffix('.')}."
    return f"{PREFIX}{str(location[0]).upper()}: {text}" if location else text
