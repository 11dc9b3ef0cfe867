"""The OpenAPI document of the application's routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel

from api.datasets.request import AddDatasetFile, CreateDataset
from api.errors.responses import EXAMPLES, Error, documented
from api.fine_tuning.request import CreateFineTuningJob
from api.http.documented_headers import HEADERS, add_headers
from api.http.route_rules import RouteRules, public
from api.images.request import CreateImage
from api.uploads.request import CompleteUpload, CreateUpload
from api.webhooks.request import CreateWebhook
from store.errors import InsufficientRole
from store.roles import Role

REFERENCE = "#/components/schemas/{model}"
PARSED_BY_SERVICES: tuple[type[BaseModel], ...] = (
    CreateFineTuningJob,
    CreateImage,
    CreateUpload,
    CompleteUpload,
    CreateDataset,
    AddDatasetFile,
    CreateWebhook,
)


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own, and what it does not know: the schemas of bodies that their services parse, roles, headers, and
    an example of every body."""
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    rules: RouteRules = app.state.rules
    schemas = found["components"]["schemas"]
    found["components"] |= {"headers": HEADERS, "examples": EXAMPLES}
    for name, shown in _examples(BaseModel):
        if name in schemas:
            schemas[name]["example"] = shown
    for parsed in PARSED_BY_SERVICES:
        request = parsed.model_json_schema(ref_template=REFERENCE)
        schemas |= request.pop("$defs", {})
        schemas[parsed.__name__] = request
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            role = rules.of(method.upper(), path).role
            if role is not None:
                _add_role(operation, role)
            add_headers(operation, needs_key=role is not None)
            _add_examples(operation, schemas)
    return found


def _examples(parent: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Of our models, by their names: FastAPI leaves every null out of what it makes of them."""
    for model in parent.__subclasses__():
        extra = model.model_config.get("json_schema_extra")
        if model.__module__.startswith("api.") and isinstance(extra, dict) and "example" in extra:
            yield model.__name__, extra["example"]
        yield from _examples(model)


def _add_role(operation: dict[str, Any], role: Role) -> None:
    """Which key an operation needs, by the rule that its requests are judged by."""
    operation["x-pairtune-role"] = str(role)
    if role is Role.READ_ONLY:
        return
    [forbidden] = documented(InsufficientRole).values()
    del forbidden["model"]
    error = {"schema": {"$ref": REFERENCE.format(model=Error.__name__)}}
    response = operation["responses"].setdefault("403", forbidden)
    response["description"] = f"Needs a key with role {role}, or what the request needs is not granted"
    content = response["content"]["application/json"]
    content |= error
    content["examples"] |= forbidden["content"]["application/json"]["examples"]


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Next to the schema of each body, the example of its model, where the route has given none."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for media in (media for body in bodies for media in body.get("content", {}).values()):
        models = [one["$ref"].rpartition("/")[2] for one in _alternatives(media.get("schema", {})) if "$ref" in one]
        examples = {model: schemas[model]["example"] for model in models if "example" in schemas[model]}
        if not examples or media.keys() & {"example", "examples"}:
            continue
        if len(models) == 1:
            media["example"] = examples[models[0]]
        else:
            media["examples"] = {model: {"value": example} for model, example in examples.items()}


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return found


def document_routes(found: dict[str, Any]) -> APIRouter:
    content = json.dumps(found, sort_keys=True)
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    @public
    async def openapi() -> Response:
        return Response(content, media_type="application/json")

    return router
