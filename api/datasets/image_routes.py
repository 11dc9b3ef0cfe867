"""The images of pairs: as they are stored, or small ones for pages that show many."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.caches.thumbnails import Thumbnails
from api.datasets import service
from api.datasets.pair_images import LARGEST_SIDE, SMALLEST_SIDE, THUMBNAIL_TYPE, original, thumbnail
from api.datasets.service import PairSide
from api.dependencies import Caller, Dependencies, Injected
from api.errors.responses import failures
from api.files.ranges import etag, etag_matches
from api.http.documented_headers import named
from api.http.route_rules import requires
from api.http.turns import Claimant, Turns
from store.errors import BlobMissing, DatasetNotFound, PairNotFound, RejectedNotFound
from store.roles import Role
from store.tenants.api_keys import Principal

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
    return Response(await _thumbnail(request, caller, dependencies, sha256, size), 200, headers, THUMBNAIL_TYPE)


async def _thumbnail(request: Request, caller: Principal, dependencies: Dependencies, sha256: str, size: int) -> bytes:
    decoding: Turns = request.app.state.decoding
    made: Thumbnails = request.app.state.thumbnails
    if (small := made.get(sha256, size)) is not None:
        return small
    async with decoding.turn(Claimant(caller.project_id, f"thumbnails {caller.key_id}")):
        small = made.get(sha256, size)  # another request for the same may have had its turn before
        if small is None:
            small = await run_in_threadpool(thumbnail, dependencies.blobs, sha256, size)
            made.save(sha256, size, small)
    return small


def _original(dependencies: Dependencies, sha256: str, headers: dict[str, str]) -> Response:
    image = original(dependencies.blobs, sha256)
    headers = headers | {"content-length": str(image.length)}
    return StreamingResponse(image.body, 200, headers, image.media_type)
