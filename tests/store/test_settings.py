"""Defaults and bounds of the settings: as the docs state them, and no other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import REPOSITORY, InvalidSettings, MissingSetting, Settings, settings

pytestmark = pytest.mark.unit
DEFAULTS = {name: field.get_default() for name, field in Settings.model_fields.items()}
UNITS = {"": 1, "GiB": 2**30, "TiB": 2**40, "s": 1, "seconds": 1, "h": 3600, "hours": 3600}
AFTER = re.compile(r"`PAIRTUNE_(?P<name>\w+)`(?:\s\(|,\s|\s\|\s)(?P<value>none|\d+)(?:\s(?P<unit>GiB|TiB|h)\b)?")
BEFORE = re.compile(r"(?P<value>\d+)\s(?P<unit>GiB|seconds|hours)[^`.|\d]*\(`PAIRTUNE_(?P<name>\w+)`")
# Sentences of docs/operations/ that state a default without the setting beside it.
SENTENCES = {
    "checkpoint_days": "| {checkpoint_days:g} days after the job's end.",
    "sweep_seconds": "or deleted, in a round every {sweep_hours:g} hours |",
    "lease_seconds": "| {lost:g} s: a lease and a tick |",
    "dispatch_seconds": "| {dispatch_seconds:g} s: a tick,",
    "republish_seconds": "| {hint:g} s: its age and a tick |",
}
# What no page states but the generated table of settings.
OTHERS: dict[str, object] = {
    "home": Path("var"),
    "host": "127.0.0.1",
    "port": 8000,
    "bases_file": REPOSITORY / "store" / "bases.toml",
    "redirect_downloads": True,
    "cors_origins": "",
    "api_processes": 1,
    "max_connections": 1000,
    "head_seconds": 20.0,
    "upload_bytes_per_second": 4096,
    "download_idle_seconds": 60.0,
    "requests_at_once": 200,
    "streams": 50,
    "anonymous_per_minute": 600,
    "checkpoints_kept": 5,
    "failed_checkpoint_days": 1.0,
    "deleted_days": 1.0,
    "webhooks_allow_http": False,
    "webhooks_allow_private": False,
    "heartbeat_seconds": 10.0,
    "stall_seconds": 1800.0,
    "audit_days": 365.0,
} | dict.fromkeys(
    ("url", "api_key", "database_url", "broker_url", "blob_url", "dinov2", "webhooks_key", "worker_memory_gib")
)
# The lowest value that is taken, and one that is too low.
LOWEST: dict[str, tuple[float, float]] = {
    "port": (1, 0),
    "max_connections": (10, 9),
    "max_upload_bytes": (1, 0),
    "cache_bytes": (0, -1),
    "min_free_bytes": (0, -1),
    "upload_bytes_per_second": (0, -1),
    "streams": (0, -1),
    "checkpoint_days": (0, -0.001),
    "audit_days": (0, -0.001),
    "blob_grace_seconds": (7200, 7199),
    "quota_stored_bytes": (0, -1),
    "quota_queued_jobs": (0, -1),
    "quota_running_jobs": (0, -1),
    "quota_uploads": (0, -1),
    "quota_queued_files": (0, -1),
    "quota_running_files": (1, 0),
    "quota_queued_images": (0, -1),
    "quota_running_images": (1, 0),
    "quota_pairs": (0, -1),
    "checkpoints_kept": (1, 0),
    "failed_checkpoint_days": (0, -0.001),
    "deleted_days": (0, -0.001),
    "intake_pixels": (1, 0),
    "lease_seconds": (10.001, 0),  # longer than a heartbeat
    "grace_seconds": (0, -0.001),
    "intake_memory_bytes": (64 * 2**20, 64 * 2**20 - 1),
}
LOWEST |= dict.fromkeys(
    (
        *("api_processes", "requests_at_once", "anonymous_per_minute", "requests_per_minute", "requests_burst"),
        *("worker_memory_gib", "crash_cap"),
    ),
    (1, 0),
)
LOWEST |= dict.fromkeys(
    (
        *("sweep_seconds", "upload_seconds", "upload_idle_seconds", "images_wait_seconds", "images_limit_seconds"),
        *("webhooks_timeout_seconds", "head_seconds", "upload_limit_seconds", "download_idle_seconds"),
        "intake_limit_seconds",
        *("heartbeat_seconds", "dispatch_seconds", "republish_seconds", "stall_seconds"),
    ),
    (0.001, 0),
)
DAY = 24 * 3600
HIGHEST: dict[str, tuple[float, float]] = {
    "port": (65535, 65536),
    "api_processes": (64, 65),
    "requests_burst": (1_000_000, 1_000_001),
    "crash_cap": (1000, 1001),
    "heartbeat_seconds": (59.999, DAY + 1),  # shorter than a lease
    "stall_seconds": (365 * DAY, 365 * DAY + 1),
}
HIGHEST |= dict.fromkeys(("requests_per_minute", "anonymous_per_minute"), (60_000_000, 60_000_001))
HIGHEST |= dict.fromkeys(("lease_seconds", "dispatch_seconds", "republish_seconds", "grace_seconds"), (DAY, DAY + 1))


def stated() -> Iterator[tuple[str, int | None, str]]:
    """Setting, default and page of each place in docs/ that states a default beside a setting's name."""
    pages = set((REPOSITORY / "docs").rglob("*.md")) - {REPOSITORY / "docs" / "reference" / "settings.md"}
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8")
        for found in (*AFTER.finditer(text), *BEFORE.finditer(text)):
            value = None if found["value"] == "none" else int(found["value"]) * UNITS[found["unit"] or ""]
            yield found["name"].lower(), value, page.name


@pytest.mark.parametrize(("name", "value", "page"), sorted(set(stated()), key=str))
def test_a_default_next_to_a_settings_name_in_the_docs_is_the_default(name: str, value: int | None, page: str) -> None:
    assert DEFAULTS[name] == value, page


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_of_the_operations_page_states_the_default(name: str) -> None:
    values = DEFAULTS | {
        "sweep_hours": DEFAULTS["sweep_seconds"] / 3600,
        "lost": DEFAULTS["lease_seconds"] + DEFAULTS["dispatch_seconds"],
        "hint": DEFAULTS["republish_seconds"] + DEFAULTS["dispatch_seconds"],
    }
    pages = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "operations").glob("*.md")]
    assert any(SENTENCES[name].format(**values) in page for page in pages)


def test_every_other_default_is_as_listed_here() -> None:
    elsewhere = {name for name, _, _ in stated()} | set(SENTENCES)
    assert {name: value for name, value in DEFAULTS.items() if name not in elsewhere} == OTHERS


def test_every_bound_has_a_value_on_either_side_of_it() -> None:
    bounds = {name: {type(bound).__name__ for bound in field.metadata} for name, field in Settings.model_fields.items()}
    assert {name for name, found in bounds.items() if found & {"Ge", "Gt"}} == set(LOWEST)
    assert {name for name, found in bounds.items() if found & {"Le", "Lt"}} == set(HIGHEST)


@pytest.mark.parametrize(
    ("name", "taken", "refused"), [(name, *pair) for name, pair in [*LOWEST.items(), *HIGHEST.items()]]
)
def test_a_value_within_the_bound_is_taken_and_one_beyond_it_is_refused(
    name: str, taken: float, refused: float
) -> None:
    assert getattr(Settings.model_validate({name: taken}), name) == taken
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: refused})


@pytest.mark.parametrize("heartbeat", [60, 61, 10_000])
def test_a_lease_that_no_heartbeat_can_renew_in_time_is_refused(heartbeat: float) -> None:
    with pytest.raises(ValidationError, match=r"PAIRTUNE_HEARTBEAT_SECONDS .* less than PAIRTUNE_LEASE_SECONDS"):
        Settings(lease_seconds=60, heartbeat_seconds=heartbeat)


WRONG = {
    "PAIRTUNE_LEASE_SECONDS=-5": "PAIRTUNE_LEASE_SECONDS: Input should be greater than 0.",
    "PAIRTUNE_LEASE_SECONDS=nan": "PAIRTUNE_LEASE_SECONDS: Input should be a finite number.",
    "PAIRTUNE_STALL_SECONDS=inf": "PAIRTUNE_STALL_SECONDS: Input should be a finite number.",
    "pairtune_lease_seconds=-5": "PAIRTUNE_LEASE_SECONDS: Input should be greater than 0.",
    "PAIRTUNE_CRASH_CAP=0": "PAIRTUNE_CRASH_CAP: Input should be greater than or equal to 1.",
    "PAIRTUNE_CRASH_CAP=": "PAIRTUNE_CRASH_CAP: Input should be a valid integer, unable to parse string as an integer.",
    "PAIRTUNE_PORT=80000": "PAIRTUNE_PORT: Input should be less than or equal to 65535.",
    "PAIRTUNE_LEASE_SECS=5": "PAIRTUNE_LEASE_SECS: there is no such setting; did you mean PAIRTUNE_LEASE_SECONDS?",
    "pairtune_crash_cpa=5": "pairtune_crash_cpa: there is no such setting; did you mean PAIRTUNE_CRASH_CAP?",
    "PAIRTUNE_SOMETHING_ELSE=5": "PAIRTUNE_SOMETHING_ELSE: there is no such setting.",
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.upper().startswith("PAIRTUNE_")]:
        monkeypatch.delenv(name)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


@pytest.mark.parametrize("given", WRONG)
def test_a_variable_that_is_unknown_or_out_of_range_is_refused_by_name(bare: pytest.MonkeyPatch, given: str) -> None:
    name, _, value = given.partition("=")
    bare.setenv(name, value)
    with pytest.raises(InvalidSettings) as refused:
        settings()
    assert refused.value.errors == [WRONG[given]]


def test_every_wrong_variable_is_named_at_once_and_no_secret_is_repeated(bare: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LEASE_SECONDS": "-1",
        "CRASH_CAP": "0",
        "COLOUR": "red",
        "WEBHOOKS_KEY": "a short secret",
    }.items():
        bare.setenv(f"PAIRTUNE_{name}", value)
    with pytest.raises(InvalidSettings) as refused:
        settings()
    names = {line.partition(":")[0].removeprefix("PAIRTUNE_") for line in refused.value.errors}
    assert names == {"LEASE_SECONDS", "CRASH_CAP", "COLOUR", "WEBHOOKS_KEY"}
    assert "a short secret" not in str(refused.value)


def test_what_compose_reads_and_what_others_call_theirs_is_let_be(bare: pytest.MonkeyPatch) -> None:
    for name in ("PAIRTUNE_GPU", "PAIRTUNEX", "MY_PAIRTUNE_HOME"):
        bare.setenv(name, "1")
    assert settings() == Settings()


def test_a_webhooks_key_has_32_characters_at_least() -> None:
    assert Settings.model_validate({"webhooks_key": "k" * 32}).webhooks_key is not None
    with pytest.raises(ValidationError, match="webhooks_key"):
        Settings.model_validate({"webhooks_key": "k" * 31})


def test_a_service_that_is_required_and_not_set_is_named() -> None:
    bare = Settings(database_url=None, broker_url=None)
    with pytest.raises(MissingSetting, match="PAIRTUNE_DATABASE_URL is not set"):
        _ = bare.required_database_url
    with pytest.raises(MissingSetting, match="PAIRTUNE_BROKER_URL is not set"):
        _ = bare.required_broker_url
    both = Settings(database_url="postgresql+psycopg://x/y", broker_url="redis://x")
    assert (both.required_database_url, both.required_broker_url) == ("postgresql+psycopg://x/y", "redis://x")


def test_what_is_not_set_follows_from_home_and_the_address(tmp_path: Path) -> None:
    local = Settings(home=tmp_path, url=None, blob_url=None, host="127.0.0.2", port=8001)
    assert local.effective_url == "http://127.0.0.2:8001"
    assert local.effective_blob_url == f"file://{tmp_path}/blobs"
    assert (local.upload_directory, local.work_directory) == (tmp_path / "uploads", tmp_path / "work")
    given = Settings(url="https://pairtune.example/", blob_url="s3://bucket/prefix")
    assert (given.effective_url, given.effective_blob_url) == ("https://pairtune.example", "s3://bucket/prefix")
