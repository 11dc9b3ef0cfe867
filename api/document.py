"""The OpenAPI document of the application's routes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel

from api.fine_tuning.request import CreateFineTuningJob
from api.images.request import CreateImage
from api.uploads.request import CompleteUpload, CreateUpload
from api.webhooks.request import CreateWebhook

REFERENCE = "#/components/schemas/{model}"
PARSED_BY_SERVICES: tuple[type[BaseModel], ...] = (
    CreateFineTuningJob,
    CreateImage,
    CreateUpload,
    CompleteUpload,
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
    return found


def document_routes(found: dict[str, Any]) -> APIRouter:
    content = json.dumps(found, sort_keys=True)
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(content, media_type="application/json")

    return router
