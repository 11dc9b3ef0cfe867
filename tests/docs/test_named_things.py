"""What the maintainers' pages name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from store.job_status import TRANSITIONS

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "page",
    [
        "docs/journey.md",
        "docs/deployment.md",
        "docs/operations.md",
        "docs/decisions/0002-one-lock-pip-torch.md",
        "docs/development/testing.md",
    ],
)
def test_a_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+(?:/[\w.]+)+\.py|docker/[\w.]+)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_state_diagram_draws_every_transition_and_no_other() -> None:
    diagram = (ROOT / "docs" / "journey.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)", diagram, re.MULTILINE))
    assert drawn == {(str(before), str(after)) for before, following in TRANSITIONS.items() for after in following}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_a_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {extra: {re.split(r"[^\w-]", one)[0] for one in extras[extra]} - {"pairtune"} for extra in extras}
    direct = {re.split(r"[^\w-]", one)[0] for one in project["dependencies"]}
    direct = direct.union(*(named[extra] for extra in ("worker", "server", "trainer", "embedded")))
    page = (ROOT / "docs" / "decisions" / "0005-dependencies.md").read_text(encoding="utf-8")
    table, _, rest = page.partition("\nDemo: ")
    reasons = set(re.findall(r"^\| ([a-z0-9-]+) \| ", table, re.MULTILINE)) - {"package"}
    assert reasons == direct
    others = named["demo"] | named["gpu"] | named["dev"]
    assert [name for name in sorted(others - reasons) if not re.search(rf"(?<![\w-]){name}(?![\w-])", rest)] == []
