"""docs/development/codebase-tour.md has the layers that import-linter enforces, and counts the files that it lists."""

from __future__ import annotations

import re
import tomllib

import pytest

from store.settings import REPOSITORY

pytestmark = pytest.mark.unit
PAGE = (REPOSITORY / "docs" / "development" / "codebase-tour.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LAYERS = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]


@pytest.mark.parametrize("contract", LAYERS, ids=lambda contract: contract["name"])
def test_the_page_has_every_list_of_layers(contract: dict[str, list[str]]) -> None:
    lines = [layer.replace(" | ", ", ") for layer in contract["layers"]]
    assert "```\n" + "\n".join(lines) + "\n```" in PAGE


@pytest.mark.parametrize("heading", ["How a prompt travels from the upload to the loss", "How a cancel travels"])
def test_a_list_of_files_has_as_many_as_it_says_and_none_twice(heading: str) -> None:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    said = re.search(r"These are the (\d+) files", section)
    assert said is not None
    listed = re.findall(r"^(\d+)\. `([\w/]+\.py)` ", section, re.MULTILINE)
    assert [int(number) for number, _ in listed] == list(range(1, int(said[1]) + 1))
    assert len({name for _, name in listed}) == len(listed)


def test_the_ten_files_to_read_are_ten() -> None:
    section = PAGE.partition("\n## Read these ten files in this order\n")[2].partition("\n\n")[0]
    assert len(re.findall(r"^\d+\. `[\w/]+\.py`: ", section, re.MULTILINE)) == 10
