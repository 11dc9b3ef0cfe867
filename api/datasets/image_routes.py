"""The images of pairs: as they are stored, or small ones for pages that show many."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.datasets import service
from api.datasets.pair_images import LARGEST_SIDE, SMALLEST_SIDE, THUMBNAIL_TYPE, original, thumbnail
from api.datasets.service import PairSide
from api.dependencies import Caller, Dependencies, Injected
from api.errors.responses import failures
from api.files.ranges import etag, etag_matches
from api.http.documented_headers import named
from api.http.route_rules import requires
from store.errors import BlobMissing, DatasetNotFound, PairNotFound, RejectedNotFound
from store.roles import Role

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
BINARY = {"schema": {"type": "string", "format": "binary"}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image.", "content": {f"image/{kind}": BINARY for kind in ("png", "jpeg", "webp")}}
    | named("etag", "cache-control"),
    304: {"description": "The client has this image already."} | named("etag", "cache-control"),
}
# An address always stands for the same bytes: a pair never changes. Private, as a key is needed.
FOR_EVER = "private, max-age=31536000, immutable"


@router.get(
    "/{dataset_id}/pairs/{pair_id}/images/{side}",
    operation_id="retrieveDatasetPairImage",
    response_class=Response,
    responses=RESPONSES | failures(DatasetNotFound, PairNotFound, RejectedNotFound, BlobMissing),
)
@requires(Role.READ_ONLY)
async def retrieve_image(
    dataset_id: str,
    pair_id: str,
    side: PairSide,
    request: Request,
    caller: Caller,
    dependencies: Injected,
    size: Annotated[
        int | None,
        Query(ge=SMALLEST_SIDE, le=LARGEST_SIDE, description="Of the longer side in pixels: a thumbnail, as WebP."),
    ] = None,
) -> Response:
    """A pair's chosen or rejected image, normalised (PNG, JPEG or WebP). Takes `If-None-Match`."""
    sha256 = await run_in_threadpool(service.image_of, dependencies, caller.project_id, dataset_id, pair_id, side)
    tag = etag(sha256 if size is None else f"{sha256}-{size}")
    headers = {"etag": tag, "cache-control": FOR_EVER}
    if etag_matches(tag, request.headers.get("if-none-match")):
        return Response(None, 304, headers)
    if size is None:
        return await run_in_threadpool(_original, dependencies, sha256, headers)
    decoding: asyncio.Semaphore = request.app.state.decoding
    async with decoding:
        small = await run_in_threadpool(thumbnail, dependencies.blobs, sha256, size)
    return Response(small, 200, headers, THUMBNAIL_TYPE)


def _original(dependencies: Dependencies, sha256: str, headers: dict[str, str]) -> Response:
    image = original(dependencies.blobs, sha256)
    headers = headers | {"content-length": str(image.length)}
    return StreamingResponse(image.body, 200, headers, image.media_type)
