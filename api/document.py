"""The OpenAPI document of the application's routes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel

from api.authentication import guarded
from api.datasets.request import AddDatasetFile, CreateDataset
from api.fine_tuning.request import CreateFineTuningJob
from api.images.request import CreateImage
from api.roles import needed_role
from api.uploads.request import CompleteUpload, CreateUpload
from api.webhooks.request import CreateWebhook
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
    """FastAPI's own, and the schemas of bodies that their services parse, unknown to FastAPI."""
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = found["components"]["schemas"]
    for parsed in PARSED_BY_SERVICES:
        request = parsed.model_json_schema(ref_template=REFERENCE)
        schemas |= request.pop("$defs", {})
        schemas[parsed.__name__] = request
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            if guarded(path):
                _add_role(operation, needed_role(method.upper(), path))
    return found


def _add_role(operation: dict[str, Any], role: Role) -> None:
    """Which key an operation needs, by the rule that its requests are judged by."""
    operation["x-pairtune-role"] = str(role)
    if role is not Role.READ_ONLY:
        forbidden = {"description": f"Needs a key with role {role}, or a quota leaves no room"}
        operation["responses"]["403"] = operation["responses"]["401"] | forbidden


def document_routes(found: dict[str, Any]) -> APIRouter:
    content = json.dumps(found, sort_keys=True)
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(content, media_type="application/json")

    return router
