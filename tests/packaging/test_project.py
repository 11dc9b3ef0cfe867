"""The files at the root say the same things, each in its one place."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.main import create_app
from cli.main import app
from store.settings import Settings
from trainer.export.metadata import versions

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION: str = PYPROJECT["project"]["version"]
PACKAGES = [pattern.removesuffix("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# https://www.apache.org/licenses/LICENSE-2.0.txt
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_version_stands_in_pyproject_alone() -> None:
    written = re.compile(rf"(?<![\d.]){re.escape(VERSION)}(?![\d.])")
    of_code = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    others = [*(ROOT / "docker").iterdir(), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.yml"), ROOT / "Makefile"]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    files = [path for path in (*of_code, *others, *pages) if path.is_file()]
    assert [path.name for path in files if written.search(path.read_text(encoding="utf-8"))] == []


def test_everything_that_states_a_version_states_that_of_the_package(tmp_path: Path) -> None:
    api = create_app(Settings(home=tmp_path, database_url="postgresql+psycopg://unused", broker_url="redis://unused"))
    command = CliRunner().invoke(app, ["--version"])
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    reported = {
        "package": version("pairtune"),
        "API": api.version,
        "OpenAPI document": document["info"]["version"],
        "command line": command.stdout.strip().removeprefix("pairtune "),
        "model card": versions()["pairtune"],
    }
    assert reported == dict.fromkeys(reported, VERSION)


def test_the_changelog_has_the_version_and_what_is_unreleased() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", VERSION]


def test_every_package_is_typed_and_checked() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []
    assert set(PACKAGES) <= set(PYPROJECT["tool"]["mypy"]["packages"])


def test_the_licence_is_the_whole_official_text() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    for page in ("NOTICE", "README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert "Apache License, Version 2.0" in text, page
        assert "CC BY-SA 4.0" in text, page


def test_the_lock_has_hashes_of_everything_and_no_address() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[\w.]+ ", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]
    assert "://" not in LOCK
    assert re.findall(r"^(?:torch|triton|nvidia|cuda)\b.*", LOCK, re.MULTILINE) == []


def test_the_workflow_runs_the_ci_script_with_pinned_actions() -> None:
    workflow = loaded(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    used = [step for step in job["steps"] if "uses" in step]
    for step in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
    (python,) = [step["with"]["python-version"] for step in used if "python-version" in step["with"]]
    assert PYPROJECT["project"]["requires-python"] == f">={python}"


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_has_a_required_question(form: str) -> None:
    document = loaded(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert document["name"]
    assert document["description"]
    requested = [part for part in document["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in requested} <= {"textarea", "input", "dropdown"}
    assert len({part["id"] for part in requested}) == len(requested)
    assert all(part["attributes"]["label"] for part in requested)
    assert any(part.get("validations", {}).get("required") for part in requested)


def test_commits_are_checked_by_the_locked_ruff() -> None:
    hooks = [hook for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in loaded(".pre-commit-config.yaml")["repos"]} == {"local"}
    assert [hook["entry"].split()[:2] for hook in hooks] == [[".venv/bin/ruff", "check"], [".venv/bin/ruff", "format"]]
    (locked,) = re.findall(r"^ruff==(\S+)", LOCK, re.MULTILINE)
    assert version("ruff") == locked
