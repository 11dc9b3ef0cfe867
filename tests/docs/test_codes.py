"""docs/operations.md explains every code that the service writes into a job, a generation or a job's event."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = re.compile(r"[a-z]+(_[a-z]+)+")
# Calls, and functions given to ``partial``, one of whose arguments is a code.
WRITERS = {"crash", "fail", "_crash", "_fail", "BadRun", "Failed"}

pytestmark = pytest.mark.unit


def test_every_code_is_explained_and_no_other() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition("\n## Codes\n")[2].partition("\n## ")[0]
    explained = {
        code for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for code in re.findall("`(.+?)`", row)
    }
    assert explained == codes()


def test_the_codes_are_found_where_they_are_written() -> None:
    """One of each way to write a code: a call, a ``partial``, a class attribute, a constant, a returned value."""
    assert codes() >= {"worker_lost", "data_missing", "output_damaged", "run_in_use", "disk_full", "out_of_memory"}


def test_every_warning_of_a_run_is_explained() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    warned = {code for tree in trees("worker", "trainer") for code in warnings(tree)}
    assert warned >= {"image_leaked", "cache_too_small", "diverging"}
    assert sorted(code for code in warned if f"\n| `{code}` |" not in page) == []


def codes() -> set[str]:
    return {code for tree in trees("worker", "store", "trainer") for code in written(tree)}


def trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            yield ast.parse(path.read_text(encoding="utf-8"))


def warnings(tree: ast.Module) -> Iterator[str]:
    """``Warned(code="...")``, and the names of the signs that a run's health is read by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name(node.func) == "Warned":
            given = (one.value for one in node.keywords if one.arg == "code")
            yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            yield from (name(key) for key in node.value.keys if key is not None and name(target) == "SIGNS")


def written(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and WRITERS & {name(one) for one in (node.func, *node.args)}:
            given = (*node.args, *(one.value for one in node.keywords if one.arg == "code"))
            yield from (code for one in given for code in constants(one))
        elif isinstance(node, ast.ClassDef):
            yield from attributes(node)
        elif isinstance(node, ast.FunctionDef) and node.name == "code_of":
            yield from constants(node)
        elif isinstance(node, ast.FunctionDef):
            yield from defaults(node)
        elif isinstance(node, ast.Dict) and any(name(one) == "code" for one in node.keys if one is not None):
            yield from errors(node)


def attributes(node: ast.ClassDef) -> Iterator[str]:
    """``code = "..."`` of an error."""
    for line in node.body:
        if isinstance(line, ast.Assign) and name(line.targets[0]) == "code":
            yield from constants(line.value)


def defaults(node: ast.FunctionDef) -> Iterator[str]:
    """``code: str = "..."`` of a function."""
    named = node.args.args[len(node.args.args) - len(node.args.defaults) :]
    for argument, default in zip(named, node.args.defaults, strict=True):
        if argument.arg == "code":
            yield from constants(default)


def errors(node: ast.Dict) -> Iterator[str]:
    """``{"code": "...", "message": ...}``."""
    for key, value in zip(node.keys, node.values, strict=True):
        if key is not None and name(key) == "code":
            yield from constants(value)


def constants(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and CODE.fullmatch(one.value):
            yield one.value


def name(node: ast.AST) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Constant(str(value)):
            return value
    return ""
