"""docs/reference/cli.md names every command, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from cli import errors
from cli.main import app

pytestmark = pytest.mark.unit
PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def test_every_command_is_on_the_page_and_no_other() -> None:
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands = {name for name, command in groups.items() if not hasattr(command, "commands")}
    commands |= {f"{name} {one}" for name, command in groups.items() for one in getattr(command, "commands", {})}
    rows = re.findall(r"^\| (`pairtune .*?) \|", PAGE, re.MULTILINE)
    named = {command for row in rows for command in _named(row)}
    assert named == commands


def _named(row: str) -> list[str]:
    """``pairtune keys create`, `list`` is two commands of one group."""
    texts = [re.sub(r"^pairtune ", "", text) for text in re.findall(r"`([^`]+)`", row)]
    words = [[word for word in text.split() if word.isalpha() and word.islower()] for text in texts]
    group = words[0][0] if len(words[0]) == 2 else None
    return [" ".join(one if len(one) == 2 or group is None else [group, *one]) for one in words]


def test_every_exit_code_is_on_the_page() -> None:
    codes = {error.exit_code for error in errors.CommandError.__subclasses__()} | {0, 1}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
