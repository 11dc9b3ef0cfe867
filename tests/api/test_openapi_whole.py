"""Each operation of the OpenAPI document is whole: examples that its schemas allow, every error, every header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from api.errors.table import ROWS
from api.http.route_rules import RouteRules
from api.main import create_app
from api.openapi.document import document
from store.roles import Role
from store.settings import Settings

pytestmark = pytest.mark.unit
APP = create_app(Settings())
RULES: RouteRules = APP.state.rules
DOCUMENT = document(APP)
OPERATIONS = {
    operation["operationId"]: (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
EVERY = pytest.mark.parametrize("name", sorted(OPERATIONS))
IMAGES_ERRORS = {"500", "503", "504"}


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of the request and of every answer, by what it is a body of, with its media type."""
    said = {"request": operation.get("requestBody", {})} | operation["responses"]
    for what, body in said.items():
        for kind, media in body.get("content", {}).items():
            yield f"{what} {kind}", media


def shown(media: dict[str, Any]) -> list[Any]:
    one = [media["example"]] if "example" in media else []
    return one + [resolved(example)["value"] for example in media.get("examples", {}).values()]


def resolved(example: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in example:
        return example
    found: dict[str, Any] = DOCUMENT["components"]["examples"][example["$ref"].rpartition("/")[2]]
    return found


def is_binary(media: dict[str, Any]) -> bool:
    return bool(media.get("schema", {}).get("format") == "binary")


@EVERY
def test_every_body_has_examples_that_its_schema_allows(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    for what, media in bodies(operation):
        if is_binary(media) or what.startswith("default"):
            continue
        examples = shown(media)
        assert examples, f"{name}: {what} has no example"
        validator = jsonschema_rs.validator_for(media["schema"] | {"components": DOCUMENT["components"]})
        for example in examples:
            field_errors = [
                f"{field_error.instance_path}: {field_error.message}" for field_error in validator.iter_errors(example)
            ]
            assert field_errors == [], f"{name}: {what}"


def expected_errors(path: str, method: str, operation: dict[str, Any]) -> set[str]:
    """What follows from what the operation takes, whatever its route says of itself."""
    if not path.startswith("/v1"):
        return set()
    parameters = {one["name"]: one["in"] for one in operation.get("parameters", [])}
    errors = {"400", "401", "429", "500", "503", "default"}
    if RULES.of(method.upper(), path).role is not Role.READ_ONLY:
        errors.add("403")
    if "path" in parameters.values():
        errors.add("404")
    if "requestBody" in operation:
        errors.add("413")
    if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
        errors.add("408")
    if "idempotency-key" in parameters:
        errors |= {"409", "422"}
    return errors


@EVERY
def test_every_error_that_follows_from_what_an_operation_takes_is_described(name: str) -> None:
    path, method, operation = OPERATIONS[name]
    assert expected_errors(path, method, operation) <= operation["responses"].keys()


@EVERY
def test_errors_of_an_answer_have_its_status(name: str) -> None:
    """Each example's code is one that the table of answers gives with that very status."""
    codes = {(str(row.status), row.code) for row in ROWS} | {("400", "invalid_value")}
    path, _, operation = OPERATIONS[name]
    for status, response in operation["responses"].items():
        if status[0] not in "45":
            continue
        for example in shown(response["content"]["application/json"]):
            assert (status, example["error"]["code"]) in codes, path


@EVERY
def test_every_answer_names_its_headers(name: str) -> None:
    path, _, operation = OPERATIONS[name]
    keyed = any(one["name"] == "idempotency-key" for one in operation.get("parameters", []))
    wanted = {"401": "www-authenticate", "416": "content-range", "429": "retry-after", "507": "x-should-retry"}
    for status, response in operation["responses"].items():
        headers = response["headers"]
        assert "x-request-id" in headers
        assert headers.keys() <= DOCUMENT["components"]["headers"].keys()
        assert wanted.get(status, "x-request-id") in headers
        if path.startswith("/v1") and status != "401":
            assert "x-ratelimit-remaining-requests" in headers
        if keyed and status.startswith("2"):
            assert "idempotent-replayed" in headers


def test_the_operations_that_the_rules_check_are_there() -> None:
    assert len(OPERATIONS) == 56
    assert OPERATIONS["createImage"][2]["responses"].keys() >= IMAGES_ERRORS
    assert "invalid_job_state" in str(OPERATIONS["pauseFineTuningJob"][2]["responses"]["409"])
