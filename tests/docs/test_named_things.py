"""What the maintainers' pages name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from store.job_status import TRANSITIONS

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.unit


PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
# What guides for contributors add.
TO_BE_WRITTEN = {
    "intake/formats/labelbox.py",
    "trainer/objectives/ipo.py",
    "trainer/families/flux.py",
    "tests/trainer/families/tiny_flux.py",
    "tests/trainer/objectives/test_ipo.py",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`([a-z_]+(?:/[\w.]+)+\.py|docker/[\w.]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file() and name not in TO_BE_WRITTEN] == []


def test_the_state_diagram_shows_every_transition_and_no_other() -> None:
    diagram = (ROOT / "docs" / "concepts" / "architecture.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)", diagram, re.MULTILINE))
    assert drawn == {(str(before), str(after)) for before, following in TRANSITIONS.items() for after in following}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_between_pages_leads_to_a_page_and_to_a_heading_of_it(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8"))
    targets = [(page.parent / path if path else page, heading) for path, heading in links]
    assert [str(target) for target, _ in targets if not target.exists()] == []
    assert [f"{target}#{name}" for target, name in targets if name and name not in headings(target)] == []


def headings(page: Path) -> set[str]:
    """As GitHub makes anchors of them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


CODE = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|\([^()]*\)")
GENERATED = {"docs/benchmark.md"}  # research/ writes it


def prose(page: Path) -> list[str]:
    """The lines outside code blocks, tables and headings; links, code and brackets are one word each."""
    found, is_code = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        is_code ^= line.lstrip().startswith("```")
        if not is_code and not line.lstrip().startswith(("```", "|", "#", "<!--")):
            found.append(CODE.sub("X", line))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_line_of_prose_holds_one_sentence(page: Path) -> None:
    if str(page.relative_to(ROOT)) in GENERATED:
        return
    assert [line for line in prose(page) if re.search(r"[a-zX][.!?] +(?=[A-Z])", line)] == []


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {extra: {re.split(r"[^\w-]", one)[0] for one in extras[extra]} - {"pairtune"} for extra in extras}
    direct = {re.split(r"[^\w-]", one)[0] for one in project["dependencies"]}
    direct = direct.union(*(named[extra] for extra in ("worker", "server", "trainer", "embedded")))
    page = (ROOT / "docs" / "decisions" / "0005-dependencies.md").read_text(encoding="utf-8")
    table, _, rest = page.partition("\nDemo:\n")
    reasons = set(re.findall(r"^\| ([a-z0-9-]+) \| ", table, re.MULTILINE)) - {"package"}
    assert reasons == direct
    others = named["demo"] | named["gpu"] | named["dev"]
    assert [name for name in sorted(others - reasons) if not re.search(rf"(?<![\w-]){name}(?![\w-])", rest)] == []


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()
