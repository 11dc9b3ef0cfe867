"""The OpenAPI document and its committed snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.main import create_app
from api.openapi import snapshot
from api.openapi.document import document
from store.settings import Settings
from trainer.spec.method_facts import METHODS

pytestmark = pytest.mark.unit
OPTIONS = ("Adapter", "Data", "Validation", "Checkpoints", "Sampling", "Mismatch", "Compute", "Token")
DOCUMENT = document(create_app(Settings()))
OPERATIONS = [
    (f"{method} {path}", operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def test_operations_have_distinct_ids_and_descriptions() -> None:
    ids = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids) == 56
    assert all(operation["description"] for _, operation in OPERATIONS)


def test_v1_operations_need_the_key_and_describe_their_errors() -> None:
    error = {"$ref": "#/components/schemas/Error"}
    for name, operation in OPERATIONS:
        if "/v1" not in name:
            assert "security" not in operation
            continue
        assert operation["security"] == [{"ApiKey": []}]
        takes_key = any(one["name"] == "idempotency-key" for one in operation.get("parameters", []))
        assert ("422" in operation["responses"]) == takes_key  # a fault of the form is 400
        for status in ("401", "503", "default"):
            assert operation["responses"][status]["content"]["application/json"]["schema"] == error


def test_every_reference_of_the_document_resolves() -> None:
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return found.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    components = DOCUMENT["components"]
    there = {f"#/components/{kind}/{name}" for kind in components for name in components[kind]}
    schemas = components["schemas"]
    assert references(DOCUMENT) <= there
    assert schemas["CreateFineTuningJob"]["required"] == ["model", "training_file"]


def test_the_method_is_distinguished_by_its_type() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    discriminator = schemas["CreateFineTuningJob"]["properties"]["method"]["discriminator"]
    assert discriminator["propertyName"] == "type"
    assert discriminator["mapping"].keys() == METHODS.keys()
    assert {target.rpartition("/")[2] for target in discriminator["mapping"].values()} <= schemas.keys()


def test_hyperparameters_and_options_say_what_they_are() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    plain = {"beta", "form", "preset", "rank", "prompts", "seed", "type"}  # said by their type, or by the method
    for name in (*(f"{name.capitalize()}Hyperparameters" for name in METHODS), *OPTIONS):
        undescribed = {field for field, schema in schemas[name]["properties"].items() if "description" not in schema}
        assert undescribed <= plain, name


def test_the_committed_snapshot_is_current() -> None:
    assert snapshot.main(["--check"]) == 0


@pytest.mark.slow
def test_a_stale_snapshot_fails_the_check_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(snapshot, "SNAPSHOT", tmp_path / "openapi.json")
    assert snapshot.main(["--check"]) == 1
    assert "python -m api.openapi > docs/openapi.json" in capsys.readouterr().err
    assert snapshot.main([]) == 0
    snapshot.SNAPSHOT.write_text(capsys.readouterr().out)
    assert snapshot.main(["--check"]) == 0
