"""docker-compose.yml runs what `pairtune up` runs, keeps no secret, and publishes the API alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.local.stack import Service, services
from store.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = ROOT / "docker-compose.yml"
LOCAL = services(Settings(host="0.0.0.0", port=8000))  # noqa: S104 - inside a container
OURS = {service.name for service in LOCAL} | {"migrate"}

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return document


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert match, duration
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def test_every_part_has_its_service(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == OURS | {"postgres", "valkey"}


@pytest.mark.parametrize("service", LOCAL, ids=lambda service: service.name)
def test_a_service_runs_the_command_of_pairtune_up(compose: dict[str, Any], service: Service) -> None:
    assert compose["services"][service.name]["command"] == ["python", "-m", *service.command]


def test_migrations_end_before_anything_of_ours_starts(compose: dict[str, Any]) -> None:
    assert compose["services"]["migrate"]["command"] == ["python", "-m", "migrations"]
    assert compose["services"]["migrate"]["restart"] == "no"
    for name in OURS - {"migrate"}:
        waits = compose["services"][name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully", name


def test_whatever_is_waited_for_as_healthy_has_a_health_check(compose: dict[str, Any]) -> None:
    awaited = {
        name
        for service in compose["services"].values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_healthy"
    }
    assert awaited == {"postgres", "valkey"}
    for name in awaited | {"api"}:
        assert compose["services"][name]["healthcheck"]["test"][0].startswith("CMD"), name


def test_a_training_worker_may_checkpoint_before_it_is_killed(compose: dict[str, Any]) -> None:
    grace = seconds(compose["services"]["worker-train"]["stop_grace_period"])
    # `pairtune up` gives the supervisor 5 s beyond the trainer's grace; over a network it takes longer.
    assert grace >= Settings().grace_seconds + 30


def test_training_and_generation_alone_reserve_a_gpu(compose: dict[str, Any]) -> None:
    reserving = {name: service["deploy"] for name, service in compose["services"].items() if "deploy" in service}
    assert set(reserving) == {"worker-train", "worker-draw"}
    for deploy in reserving.values():
        (device,) = deploy["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.mark.parametrize("name", ["worker-train", "worker-draw"])
def test_a_worker_with_a_gpu_sees_one(compose: dict[str, Any], name: str) -> None:
    assert compose["services"][name]["environment"]["CUDA_VISIBLE_DEVICES"] == "${PAIRTUNE_GPU:-0}"


def test_the_api_alone_is_published_and_on_loopback(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"api": ["${PAIRTUNE_HOST:-127.0.0.1}:${PAIRTUNE_PORT:-8000}:8000"]}


def test_the_broker_keeps_its_messages(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["valkey"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_passwords_come_from_the_environment_alone(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", name) and value is not None:  # without one: from the environment
                assert re.fullmatch(r"\$\{\w+(:\?[^}]*)?\}", value), name
    for text in texts(compose):
        for password in re.findall(r"://\w*:([^@/]+)@", text):
            assert re.fullmatch(r"\$\{\w+\}", password), text
    command = compose["services"]["valkey"]["command"]
    assert command[command.index("--requirepass") + 1].startswith("${VALKEY_PASSWORD:?")


def test_a_service_gets_every_setting_and_of_the_secrets_those_that_it_needs(compose: dict[str, Any]) -> None:
    given = {name: set(compose["services"][name]["environment"]) for name in OURS}
    working = OURS - {"migrate"}
    receivers = {
        "PAIRTUNE_DATABASE_URL": OURS,
        "PAIRTUNE_BROKER_URL": working,
        "PAIRTUNE_BLOB_URL": working,
        "PAIRTUNE_WEBHOOKS_KEY": {"api", "dispatcher"},
        "PAIRTUNE_API_KEY": set(),
    }
    for field in Settings.model_fields:
        name = f"PAIRTUNE_{field.upper()}"
        assert {service for service in OURS if name in given[service]} == receivers.get(name, OURS), name
    for service, names in given.items():
        secret = {name for name in names if re.search("PASSWORD|SECRET|TOKEN|KEY", name)}
        stores = {name for name in secret if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
        hub = {"HF_TOKEN"} if service in ("worker-train", "worker-draw") else set()
        signing = {"PAIRTUNE_WEBHOOKS_KEY"} if service in ("api", "dispatcher") else set()
        assert secret - stores == hub | signing, service
        assert bool(stores) == (service != "migrate"), service
    for service in compose["services"].values():
        assert "env_file" not in service


def test_the_example_names_every_required_variable_and_gives_none_a_value(compose: dict[str, Any]) -> None:
    example = (ROOT / "docker" / "env.example").read_text(encoding="utf-8")
    required = {name for text in texts(compose) for name in re.findall(r"\$\{(\w+):\?", text)}
    assert required == {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "PAIRTUNE_WEBHOOKS_KEY"}
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == required
    assert re.findall(r"^\w+=.+$", example, re.MULTILINE) == []


def test_the_example_names_settings_that_there_are() -> None:
    example = (ROOT / "docker" / "env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?PAIRTUNE_(\w+)=", example, re.MULTILINE))
    of_compose_alone = {"GPU"}
    assert named - {field.upper() for field in Settings.model_fields} == of_compose_alone


def test_named_volumes_are_declared_and_all_of_them_used(compose: dict[str, Any]) -> None:
    mounted = {
        volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])
    }
    assert mounted == set(compose["volumes"]) == {"pgdata", "valkey", "blobs", "uploads", "work", "hf-cache"}


def test_dockerfiles_make_every_directory_that_a_volume_of_ours_covers(compose: dict[str, Any]) -> None:
    for name in OURS:
        service = compose["services"][name]
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text(encoding="utf-8")
        for volume in service.get("volumes", []):
            assert volume.split(":")[1] in dockerfile, (name, volume)


def test_whoever_handles_files_sees_the_shared_blobs(compose: dict[str, Any]) -> None:
    for name in OURS - {"migrate"}:
        assert "blobs:/var/lib/pairtune/blobs" in compose["services"][name]["volumes"], name
