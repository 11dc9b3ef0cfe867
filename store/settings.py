"""Deployment settings: the only reader of the environment. Every variable is ``PAIRTUNE_`` and the field's name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent  # where the packages lie: a checkout, or site-packages
SHIPPED_BASES = Path(__file__).resolve().with_name("bases.toml")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PAIRTUNE_", env_parse_none_str="none", frozen=True)

    home: Path = Field(Path("var"), description="Local state: embedded services, blobs, work directories, local.key.")
    host: str = Field("127.0.0.1", description="Address that the API of `up` listens on.")
    port: int = Field(8000, description="Port that the API of `up` listens on.")
    url: str | None = Field(None, description="Where the command line finds the API; this machine's without it.")
    api_key: str | None = Field(None, description="The command line's key; HOME/local.key without it.")
    database_url: str | None = Field(None, description="postgresql+psycopg://...; without it `up` starts its own.")
    broker_url: str | None = Field(None, description="redis://...; without it `up` starts its own Valkey.")
    blob_url: str | None = Field(None, description="file://, s3://, gs:// or az://; HOME/blobs without it.")
    redirect_downloads: bool = Field(
        True,
        description="Whether clients are led to S3 for files that lie there; without it the API sends them itself.",
    )
    bases_file: Path = Field(SHIPPED_BASES, description="The base models that jobs may name.")
    dinov2: Path | None = Field(
        None, description="A directory with a DINOv2 in safetensors, to measure reference mismatch with."
    )
    cache_bytes: int = Field(
        50 * 2**30, ge=0, description="How large a worker's cache of encoded images and prompts may grow."
    )
    max_upload_bytes: int = Field(20 * 2**30, description="A larger upload is answered 413.")

    min_free_bytes: int = Field(
        2**30,
        ge=0,
        description="With less than this free where a process writes, nothing new is begun there: uploads and jobs "
        "are answered 507, workers claim nothing.",
    )

    checkpoint_days: float = Field(
        14.0, ge=0, description="Days after a job's end for which the files of all of its checkpoints are kept."
    )
    blob_grace_seconds: float = Field(
        24 * 3600.0,
        ge=2 * 3600.0,  # twice Blobs' RENEWED_AFTER: from storing bytes to naming them in a row a writer has the rest
        description="Time for which a blob that no row names is kept, and one whose row was deleted.",
    )
    sweep_seconds: float = Field(6 * 3600.0, gt=0, description="How often old checkpoints and blobs are cleared away.")

    cors_origins: str = Field(
        "",
        description="Web origins whose pages may call the API, with spaces between; none without it.",
    )

    upload_seconds: float = Field(24 * 3600.0, gt=0, description="Time that an upload in parts has to be completed.")
    upload_idle_seconds: float = Field(
        60.0, gt=0, description="A client that sends nothing of its body for this long is cut off (408)."
    )

    # A project's quotas and its keys' rate, where `pairtune projects set` gives it none of its own; `none`: no limit.
    quota_stored_bytes: int | None = Field(
        2**40, ge=0, description="Bytes of a project's files and of its uploads in flight."
    )
    quota_queued_jobs: int | None = Field(
        1000, ge=0, description="Jobs of a project that wait: for files, for a worker, or paused."
    )
    quota_running_jobs: int | None = Field(None, ge=0, description="Jobs of a project that run at the same time.")
    quota_uploads: int | None = Field(100, ge=0, description="Uploads in parts that a project has in flight.")
    requests_per_minute: int | None = Field(
        1200, ge=1, le=60_000_000, description="Requests of one API key; `up` on a loopback address has no limit."
    )
    requests_burst: int = Field(300, ge=1, le=1_000_000, description="Requests of one API key that may come at once.")
    images_wait_seconds: float = Field(
        120.0, gt=0, description="How long a request for images waits for them before it is answered 503 or 504."
    )
    images_limit_seconds: float = Field(
        600.0, gt=0, description="Drawing the images of one request is ended after this long."
    )

    webhooks_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="What webhooks' signing secrets are made from, the same for all services; HOME/webhooks.key "
        "without it.",
    )
    webhooks_allow_http: bool = Field(False, description="Whether webhooks may go to http:// URLs.")
    webhooks_allow_private: bool = Field(
        False, description="Whether webhooks may go to private and loopback addresses: this network's own services."
    )
    webhooks_timeout_seconds: float = Field(
        10.0, gt=0, description="How long a receiver of webhooks may take from connecting to its answer."
    )

    worker_memory_gib: int | None = Field(
        None, ge=1, description="This training worker's device memory: it takes no job that needs more. None: any job."
    )

    intake_memory_bytes: int = Field(
        4 * 2**30, ge=2**26, description="What reading one upload may take of an intake worker's memory."
    )

    # Times in seconds. A worker is given up after `lease`; three missed heartbeats fit into it with room to spare.
    lease_seconds: float = Field(60.0, description="A worker that does not renew its lease for this long loses it.")
    heartbeat_seconds: float = Field(10.0, description="How often a worker renews its lease.")
    dispatch_seconds: float = Field(10.0, description="How often the dispatcher looks for expired leases.")
    republish_seconds: float = Field(30.0, description="Age at which an unclaimed row's hint is sent again.")
    grace_seconds: float = Field(60.0, description="From SIGTERM to SIGKILL of a trainer that has to checkpoint.")
    stall_seconds: float = Field(1800.0, description="A trainer that says nothing for this long is taken to hang.")
    crash_cap: int = Field(3, description="Crashes after which a job or file fails instead of being tried again.")

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


class MissingSetting(RuntimeError):
    def __init__(self, variable: str) -> None:
        super().__init__(f"{variable} is not set: start through `pairtune up`, or set it to your own service.")


@cache
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
