"""Each package finds what it imports in its extras, and an extra has nothing that nobody imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_PACKAGE = {
    "api": {"server"},
    "cli": {"embedded", "worker"},
    "demo": {"demo"},
    "research": {"demo"},
    "intake": {"worker"},
    "migrations": {"worker"},
    "store": {"worker"},
    "trainer": {"trainer", "gpu"},
    "worker": {"worker"},
}
# What a declared distribution is made of, and publishes as packages of their own.
COMES_WITH = {"anyio": "fastapi", "huggingface-hub": "diffusers", "pydantic-core": "pydantic", "starlette": "fastapi"}
OPTIONAL = {"click"}  # httpx imports it where it is installed
CLIENT = """
import sys
before = set(sys.modules)
import cli.main
print("\\n".join({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def declared(*extras: str) -> set[str]:
    """The distributions that these extras bring directly, with those that every installation has."""
    found: set[str] = set()
    waiting = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == PROJECT["name"]:
            waiting += [one for extra in requirement.extras for one in PROJECT["optional-dependencies"][extra]]
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def imported(package: str) -> Iterator[tuple[str, Path]]:
    """Third parties' distributions that a package imports anywhere, also within functions, and the file that does."""
    owners = packages_distributions()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - set(OF_PACKAGE):
                distribution = canonicalize_name(owners.get(top, [top])[0])
                yield COMES_WITH.get(distribution, distribution), path


def test_every_package_has_its_extras() -> None:
    assert {path.parent.name for path in ROOT.glob("*/py.typed")} == set(OF_PACKAGE)


@pytest.mark.parametrize("package", OF_PACKAGE)
def test_a_package_imports_only_what_its_extras_bring(package: str) -> None:
    brought = declared(*OF_PACKAGE[package])
    found = list(imported(package))
    assert found
    assert {(name, str(path.relative_to(ROOT))) for name, path in found if name not in brought} == set()


def test_no_extra_brings_what_nobody_imports() -> None:
    used = {name for package in OF_PACKAGE for name, _ in imported(package)}
    extras = set().union(*OF_PACKAGE.values())
    assert declared(*extras) - used == set()


@pytest.mark.parametrize(("part", "whole"), COMES_WITH.items())
def test_what_comes_with_another_is_required_by_it(part: str, whole: str) -> None:
    assert part in {canonicalize_name(Requirement(one).name) for one in requires(whole) or []}


def test_the_command_line_starts_with_what_every_installation_has() -> None:
    loaded = subprocess.run([sys.executable, "-c", CLIENT], cwd=ROOT, check=True, capture_output=True, text=True)
    owners = packages_distributions()
    found = {canonicalize_name(owners[top][0]) for top in loaded.stdout.split() if top in owners}
    assert "typer" in found
    assert found - needed_by(declared()) - {"pairtune"} - OPTIONAL == set()


def needed_by(names: set[str]) -> set[str]:
    """``names`` and what they require, without extras, and so on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for one in map(Requirement, requires(name) or []):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(one.name))
    return found
