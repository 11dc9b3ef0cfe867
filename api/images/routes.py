"""/v1/images/generations."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.audit.actor import By
from api.dependencies import Caller, Dependencies, Injected
from api.errors.errors import GenerationCancelled, GenerationFailed, GenerationQueued, GenerationRunning
from api.errors.responses import BODY, ONCE, failures
from api.files.ranges import etag, etag_matches
from api.http.documented_headers import named
from api.http.idempotency import REPLAYED, IdempotencyKey, once
from api.http.json_body import JsonBody, ParsedBody
from api.http.route_rules import requires
from api.http.transactions import transaction
from api.images import service
from api.images.request import CreateImage, Form, parse
from api.images.schemas import ImageGeneration, ImageGenerationDeleted, ImagesResponse
from api.images.waiting import GenerationWaiters
from store.errors import BlobMissing, GenerationNotFound, ImageNotFound, QuotaExceeded
from store.generations import generations
from store.roles import Role
from store.tenants import audit
from store.tenants.api_keys import Principal

router = APIRouter(prefix="/v1/images/generations", tags=["images"])
PNG = "image/png"
CREATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{CreateImage.__name__}"}}},
    }
}
IMAGE_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image.", "content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}
    | named("etag", "cache-control"),
    304: {"description": "The client has it already."} | named("etag", "cache-control"),
}
RetryCount = Annotated[
    str, Header(description="Set by the openai SDK. Above 0, the images of the first try are waited for again.")
]


@router.post(
    "",
    operation_id="createImage",
    response_model=ImagesResponse,
    responses=failures(
        *BODY, *ONCE, QuotaExceeded, GenerationCancelled, GenerationFailed, GenerationQueued, GenerationRunning
    ),
    openapi_extra=CREATE_BODY,
)
@requires(Role.MEMBER)
async def create_image(
    body: ParsedBody,
    request: Request,
    caller: Caller,
    dependencies: Injected,
    idempotency_key: IdempotencyKey = None,
    x_stainless_retry_count: RetryCount = "0",
) -> Response:
    """Generate images. The answer comes when they exist; what takes longer than the server waits is answered 503
    (no worker has started it) or 504 (it is running) with `Retry-After` and `generation_id`, and goes on."""
    is_retry = x_stainless_retry_count not in ("", "0")
    begin = partial(_begin, dependencies, caller, body, idempotency_key, is_retry=is_retry)
    generation_id, replayed = await run_in_threadpool(begin)
    waiting: GenerationWaiters = request.app.state.waiting
    await waiting.until_ended(generation_id, seconds=dependencies.settings.images_wait_seconds)
    form: Form = "url" if body.document.get("response_format") == "url" else "b64_json"
    answer = partial(_answer, dependencies, caller.project_id, generation_id, _origin(request, dependencies), form)
    return Response(
        await run_in_threadpool(answer), media_type="application/json", headers=REPLAYED if replayed else None
    )


def _begin(
    dependencies: Dependencies, caller: Principal, body: JsonBody, key: str | None, *, is_retry: bool
) -> tuple[str, bool]:
    """The generation's id, and whether this key has requested it before."""
    checked = parse(body.document)
    with transaction(dependencies) as work:
        create = partial(service.begin, work, dependencies.bases, caller, body, checked, is_retry=is_retry)
        begun = once(work, caller, key, "createImage", body.sha256, create)
    if isinstance(begun, JSONResponse):
        return json.loads(bytes(begun.body))["id"], True
    return begun.id, False


def _answer(dependencies: Dependencies, project_id: str, generation_id: str, origin: str, form: Form) -> bytes:
    """As bytes: images in base64 are large, and the event loop has others to serve."""
    with transaction(dependencies) as work:
        row = generations.get(work.session, project_id, generation_id)
    return service.answer(row, dependencies.blobs, origin, form).model_dump_json().encode()


def _origin(request: Request, dependencies: Dependencies) -> str:
    return (dependencies.settings.url or str(request.base_url)).rstrip("/")


@router.get(
    "/{generation_id}", operation_id="retrieveImageGeneration", responses=failures(GenerationNotFound, BlobMissing)
)
@requires(Role.READ_ONLY)
def retrieve_image_generation(
    generation_id: str,
    request: Request,
    caller: Caller,
    dependencies: Injected,
    response_format: Annotated[Form, Query(description="How `data` holds the images.")] = "url",
) -> ImageGeneration:
    """What became of a request for images. An addition."""
    with transaction(dependencies) as work:
        row = generations.get(work.session, caller.project_id, generation_id)
    return service.generation(row, dependencies.blobs, _origin(request, dependencies), response_format)


@router.post("/{generation_id}/cancel", operation_id="cancelImageGeneration", responses=failures(GenerationNotFound))
@requires(Role.MEMBER)
def cancel_image_generation(
    generation_id: str, request: Request, caller: Caller, dependencies: Injected
) -> ImageGeneration:
    """Cancel a request for images; one that runs becomes `cancelled` shortly after, one that has ended stays as it is.
    An addition."""
    with transaction(dependencies) as work:
        row = generations.cancel(work.session, caller.project_id, generation_id)
    return service.generation(row, dependencies.blobs, _origin(request, dependencies), "url")


@router.delete("/{generation_id}", operation_id="deleteImageGeneration", responses=failures(GenerationNotFound))
@requires(Role.MEMBER)
def delete_image_generation(
    generation_id: str, caller: Caller, by: By, dependencies: Injected
) -> ImageGenerationDeleted:
    """Delete a request for images and its images; one that has not ended is cancelled. An addition."""
    with transaction(dependencies) as work:
        generations.delete(work.session, caller.project_id, generation_id)
        audit.record(work.session, by, "image_generation.deleted", generation_id)
    return ImageGenerationDeleted(id=generation_id)


@router.get(
    "/{generation_id}/images/{index}",
    operation_id="downloadImage",
    response_class=Response,
    responses=IMAGE_RESPONSE | failures(GenerationNotFound, ImageNotFound, BlobMissing),
)
@requires(Role.READ_ONLY)
def download_image(
    generation_id: str,
    index: Annotated[int, Path(ge=0, description="Counted from 0.")],
    request: Request,
    caller: Caller,
    dependencies: Injected,
) -> Response:
    """One generated image. An addition."""
    with transaction(dependencies) as work:
        sha256 = service.image(work.session, caller.project_id, generation_id, index)
    headers = {"etag": etag(sha256), "cache-control": "private, max-age=31536000, immutable"}
    if etag_matches(headers["etag"], request.headers.get("if-none-match")):
        return Response(None, 304, headers)
    return StreamingResponse(dependencies.blobs.stream(sha256), 200, headers, PNG)
