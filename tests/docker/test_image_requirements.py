"""Choosing what pip installs into an image."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "docker" / "image_requirements.py"
PROJECT = {
    "name": "pairtune",
    "dependencies": ["typer"],
    "optional-dependencies": {
        "worker": ["celery[redis]", "pillow"],
        "server": ["fastapi", "pairtune[worker]"],
        "all": ["pairtune[server,trainer]"],
        "trainer": ["pillow", "torch==2.13.0"],
    },
}
LOCK = """# Made by hand.
amqp==5.4.2 \\
    --hash=sha256:aa
    # via kombu
celery==5.7.0 \\
    --hash=sha256:bb
    # via pairtune (pyproject.toml)
Jinja2==3.1.6 \\
    --hash=sha256:cc \\
    --hash=sha256:dd
    # via
    #   other-thing
    #   torch
kombu==5.7.0 ; sys_platform != 'win32' \\
    --hash=sha256:ee
    # via
    #   celery
    #   pairtune (pyproject.toml)
pytest==9.2.0 \\
    --hash=sha256:ff
    # via pairtune (pyproject.toml)
"""

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_requirements", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("torch==2.13.0", "torch"),
        ("psycopg[binary]>=3.2", "psycopg"),
        ("Python_Multipart", "python-multipart"),
        ("uvloop; sys_platform != 'win32'", "uvloop"),
    ],
)
def test_a_requirement_is_known_by_its_normalised_name(script: ModuleType, requirement: str, name: str) -> None:
    assert script.distribution(requirement) == name


def test_extras_bring_what_they_list_and_the_extras_that_they_name(script: ModuleType) -> None:
    assert script.direct_requirements(PROJECT, ["server"]) == ["typer", "fastapi", "celery[redis]", "pillow"]
    assert script.direct_requirements(PROJECT, ["all"]) == [
        *("typer", "fastapi", "pillow", "torch==2.13.0", "celery[redis]"),
    ]


def test_an_extra_that_there_is_not_is_an_error(script: ModuleType) -> None:
    with pytest.raises(KeyError, match="gpu"):
        script.direct_requirements(PROJECT, ["server", "gpu"])


def test_what_a_distribution_needs_comes_with_it_by_its_whole_entry(script: ModuleType) -> None:
    entries = script.locked_entries(LOCK)
    assert list(entries) == ["amqp", "celery", "jinja2", "kombu", "pytest"]
    assert "".join(entries.values()) == LOCK.partition("\n")[2]
    assert list(script.with_needed(["celery"], entries)) == ["amqp", "celery", "kombu"]


def test_both_versions_of_a_distribution_are_taken(script: ModuleType) -> None:
    newer = "kombu==6.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:ab\n    # via celery\n"
    entries = script.locked_entries(LOCK + newer)
    assert entries["kombu"].count("==") == 2
    assert "amqp" in list(script.with_needed(["kombu"], entries))


def test_what_is_not_locked_has_locked_needs(script: ModuleType) -> None:
    assert list(script.with_needed(["torch"], script.locked_entries(LOCK))) == ["jinja2"]


@pytest.mark.parametrize("arguments", [[], ["gpu"], ["api", "worker"], ["api", "--direct"]])
def test_an_unknown_image_is_refused_with_the_known_ones(
    script: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(arguments) == 2
    assert "api|worker" in capsys.readouterr().err
