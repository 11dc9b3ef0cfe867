"""Each error of the API and of the store is one row, and all that names errors is made from the rows."""

from __future__ import annotations

import ast
import inspect
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from fastapi import Request

from api.errors import docs
from api.errors.answers import respond
from api.errors.errors import ApiError
from api.errors.responses import EXAMPLES, NAMES
from api.errors.table import BY_CLASS, NEVER_ANSWERED, NO_RETRY, ROWS, ErrorRow
from store.errors import NotFound, StoreError
from store.logs import configure_logs
from store.settings import REPOSITORY

pytestmark = pytest.mark.unit
BASES = {ApiError, StoreError, NotFound}
EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row.sample).__name__)


def _subclasses(parent: type[Exception]) -> Iterator[type[Exception]]:
    for child in parent.__subclasses__():
        yield child
        yield from _subclasses(child)


def _ours() -> set[type[Exception]]:
    """The errors that stand in api/errors/errors.py and store/errors.py."""
    return {
        kind
        for parent in (ApiError, StoreError)
        for kind in _subclasses(parent)
        if kind.__module__ in ("api.errors.errors", "store.errors")
    } - BASES


def _raised() -> set[str]:
    """Names of the classes of which some module of the service, the table aside, makes an error."""
    found = set()
    for path in (path for part in ("api", "store", "worker") for path in (REPOSITORY / part).rglob("*.py")):
        if path.name == "error_table.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            made = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) else None
            if isinstance(made, ast.Name):
                found.add(made.id)
    return found


def test_every_error_has_a_row_or_a_reason_why_no_route_answers_with_it() -> None:
    lacking = {kind.__name__ for kind in _ours() - BY_CLASS.keys() - NEVER_ANSWERED.keys()}
    assert lacking == set(), "give each a row in api/errors/table.py"
    assert BY_CLASS.keys() & NEVER_ANSWERED.keys() == set()
    assert NEVER_ANSWERED.keys() <= _ours()


def test_every_row_is_of_an_error_that_is_raised() -> None:
    ours = {kind.__name__ for kind in BY_CLASS if kind in _ours()}
    assert ours - _raised() == set(), "nothing raises these; take their rows and classes away"


def test_no_two_rows_are_of_one_class() -> None:
    twice = [kind.__name__ for kind, count in Counter(type(row.sample) for row in ROWS).items() if count > 1]
    assert twice == []


def test_every_error_says_in_its_docstring_when_it_is_raised() -> None:
    inherited = {None, inspect.getdoc(ApiError), inspect.getdoc(StoreError)}
    assert {kind.__name__ for kind in _ours() if inspect.getdoc(kind) in inherited} == set()


@EACH_ROW
def test_an_answer_has_the_status_the_code_and_the_headers_of_its_row(row: ErrorRow) -> None:
    configure_logs()  # to this test's stderr
    answer = respond(Request({"type": "http", "path_params": {}, "state": {}}), row.sample)
    error = json.loads(bytes(answer.body))["error"]
    codes = {row.code, *(field_error["code"] for field_error in error.get("errors", []))}
    assert (answer.status_code, error["code"] in codes) == (row.status, True)
    assert error["type"] == ("server_error" if row.status >= 500 else "invalid_request_error")
    assert row.headers_of(row.sample).items() <= dict(answer.headers).items()


@EACH_ROW
def test_a_lack_of_space_and_a_conflict_say_whether_repeating_helps(row: ErrorRow) -> None:
    passing = {"file_not_processed", "report_not_ready", "idempotency_in_flight"}
    if row.status in (409, 507):
        assert (row.headers == NO_RETRY) == (row.code not in passing), "the openai SDK repeats these by itself"


def test_the_openapi_document_has_an_example_of_every_row() -> None:
    assert NAMES.keys() == BY_CLASS.keys()
    assert EXAMPLES.keys() == set(NAMES.values())
    assert len(EXAMPLES) == len(ROWS)


def test_the_table_of_codes_in_the_guide_is_current() -> None:
    page = docs.PAGE.read_text(encoding="utf-8")
    assert docs.with_table(page) == page, "python -m api.errors.docs"


def test_what_the_service_does_by_design_is_logged_without_a_traceback() -> None:
    without = {row.code for row in ROWS if row.expected}
    assert without == {
        "generation_failed",
        "generation_queued",
        "generation_running",
        "insufficient_storage",
        "not_ready",
    }
