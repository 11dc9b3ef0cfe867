"""The codes of failures and warnings: each is raised by one part, and the others and the pages name no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from store.settings import REPOSITORY
from trainer.evaluation.diagnostics import DIAGNOSTICS
from trainer.runtime.errors import TrainerError, out_of_memory_code
from worker.training.conclusion import TRANSIENT

pytestmark = pytest.mark.unit
# The calls that give a job or images a code; a crash is tried again.
FAIL, CRASH = ("fail", "_fail"), ("crash", "_crash")


def _calls(part: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a package with the name of what is called; ``partial(f, ...)`` is a call of ``f``."""
    for path in sorted((REPOSITORY / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.args[0] if _name(node.func) == "partial" and node.args else node.func
                yield _name(called), node


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _texts(nodes: list[ast.expr]) -> set[str]:
    return {
        leaf.value
        for node in nodes
        for leaf in ast.walk(node)
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and re.fullmatch("[a-z_]+", leaf.value)
    }


def _keyword_codes(part: str, *names: str) -> set[str]:
    """The texts that calls of these names are given as ``code``."""
    given = [one.value for name, call in _calls(part) if name in names for one in call.keywords if one.arg == "code"]
    return {text for text in _texts(given) if "_" in text}


def _of_the_trainer() -> set[str]:
    errors = {kind.code for kind in TrainerError.__subclasses__() if "code" in vars(kind)}
    by_place = [call.args[1] for name, call in _calls("trainer") if name == "BadRun" and len(call.args) > 1]
    named = _keyword_codes("trainer", "BadRun", "Failed") | _texts(by_place)
    return errors | {"bad_spec", out_of_memory_code("device"), out_of_memory_code("host")} | named


def _of_the_worker(*names: str) -> set[str]:
    """Codes stand by their place among the arguments there."""
    ended = [argument for name, call in _calls("worker") if name in names for argument in call.args]
    return _texts([one for one in ended if isinstance(one, ast.Constant)])


def _of_failures() -> set[str]:
    store = _keyword_codes("store", *FAIL, *CRASH) | {"invalid_file"}
    return _of_the_trainer() - {"interrupted"} | _of_the_worker(*FAIL, *CRASH) | store


def _of_warnings() -> set[str]:
    return set(DIAGNOSTICS) | _keyword_codes("trainer", "Warned") | _keyword_codes("worker", "Warned")


def _table(page: str, heading: str) -> dict[str, list[str]]:
    """The cells of the table under a heading, by the code in the first column."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {code.strip("`"): cells for code, *cells in rows}


def test_the_page_has_every_code_that_a_job_or_images_can_fail_with() -> None:
    assert _table("reference/failure-codes.md", "## Why jobs fail").keys() == _of_failures()


def test_the_page_says_which_failures_are_tried_again() -> None:
    table = _table("reference/failure-codes.md", "## Why jobs fail")
    crashes = _of_the_worker(*CRASH) | _keyword_codes("store", *CRASH) | set(TRANSIENT)
    assert {code for code, (_, again, _) in table.items() if "yes" in again} == crashes


def test_the_page_has_every_code_that_a_run_can_warn_with() -> None:
    damaged = {"checkpoint_damaged"}  # trainer/training/setup.py reports what trainer/training/checkpoint.py finds
    assert _table("guides/read-the-metrics.md", "## Warnings").keys() == _of_warnings() | damaged
