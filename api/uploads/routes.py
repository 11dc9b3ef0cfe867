"""/v1/uploads."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from api.dependencies import Caller, Injected
from api.errors.example_ids import SHA256
from api.errors.responses import BODY, DISK_ERRORS, FORM, ONCE, failures
from api.files.receive import received
from api.files.reservation import of_upload
from api.http.free_space import require_free_space
from api.http.idempotency import IdempotencyKey, once
from api.http.json_body import ParsedBody
from api.http.paging import After
from api.http.route_rules import form_of, requires
from api.http.transactions import transaction
from api.uploads import service
from api.uploads.schemas import Upload, UploadPart, UploadPartList
from store.errors import CursorUnknown, QuotaExceeded, TooManyParts, UploadNotFound, UploadNotPending
from store.files.uploads import MAX_PARTS, PART_BYTES
from store.roles import Role

COMPLETE_BYTES = 1024 * 1024  # the ids of 10,000 parts
router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


def _body(model: str) -> dict[str, Any]:
    """The schema of a body that its service parses; api/openapi/document.py adds it."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


PART_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "additionalProperties": False,
                    "properties": {
                        "data": {"type": "string", "format": "binary", "description": "At most 64 MiB."},
                        "sha256": {"type": "string", "description": "Of the part, to be checked. An addition."},
                    },
                },
                "example": {"data": "(the part's bytes)", "sha256": SHA256},
            }
        },
    }
}


async def _content(request: Request) -> bytes:
    return await request.body()


@router.post(
    "",
    operation_id="createUpload",
    dependencies=[Depends(require_free_space)],
    response_model=Upload,
    responses=failures(*BODY, *ONCE, *DISK_ERRORS, QuotaExceeded),
    openapi_extra=_body("CreateUpload"),
)
@requires(Role.MEMBER)
def create_upload(
    body: ParsedBody, caller: Caller, dependencies: Injected, idempotency_key: IdempotencyKey = None
) -> Upload | JSONResponse:
    """Begin a file that comes in parts. It expires unless it is completed in time."""
    new = service.declared(dependencies.settings, caller.project_id, body)
    with transaction(dependencies) as work:
        create = partial(
            service.create, work, new, caller.limits, lifetime_seconds=dependencies.settings.upload_seconds
        )
        return once(work, caller, idempotency_key, "createUpload", body.sha256, create)


@router.get("/{upload_id}", operation_id="retrieveUpload", responses=failures(UploadNotFound))
@requires(Role.READ_ONLY)
def retrieve_upload(upload_id: str, caller: Caller, dependencies: Injected) -> Upload:
    """One upload. An addition."""
    with transaction(dependencies) as work:
        return service.shown(work.session, caller.project_id, upload_id)


@router.post(
    "/{upload_id}/parts",
    operation_id="createUploadPart",
    dependencies=[Depends(require_free_space)],
    responses=failures(*FORM, *DISK_ERRORS, UploadNotFound, UploadNotPending, TooManyParts),
    openapi_extra=PART_FORM,
)
@requires(Role.MEMBER, max_body=form_of(lambda _: PART_BYTES))
async def create_upload_part(upload_id: str, request: Request, caller: Caller, dependencies: Injected) -> UploadPart:
    """Add a part. Several may come at once and in any order; the order is given when the upload is completed."""
    upload = await run_in_threadpool(service.check_open, dependencies, caller.project_id, upload_id)
    async with received(request, of_upload(dependencies, upload), file="data", texts=("sha256",)) as sent:
        return await run_in_threadpool(service.add_part, dependencies, caller.project_id, upload_id, sent)


@router.get("/{upload_id}/parts", operation_id="listUploadParts", responses=failures(CursorUnknown, UploadNotFound))
@requires(Role.READ_ONLY)
def list_upload_parts(
    upload_id: str,
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PARTS)] = 1000,
) -> UploadPartList:
    """The parts that have arrived, oldest first: what an interrupted client need not send again. An addition."""
    with transaction(dependencies) as work:
        return service.parts(work.session, caller.project_id, upload_id, after=after, limit=limit)


@router.post(
    "/{upload_id}/complete",
    operation_id="completeUpload",
    responses=failures(*BODY, *DISK_ERRORS, UploadNotFound, UploadNotPending),
    openapi_extra=_body("CompleteUpload"),
)
@requires(Role.MEMBER, max_body=lambda _: COMPLETE_BYTES)
def complete_upload(
    upload_id: str, content: Annotated[bytes, Depends(_content)], caller: Caller, dependencies: Injected
) -> Upload:
    """Make a file of the parts. Completing again returns the same file."""
    return service.complete(dependencies, caller.project_id, upload_id, content)


@router.post("/{upload_id}/cancel", operation_id="cancelUpload", responses=failures(UploadNotFound, UploadNotPending))
@requires(Role.MEMBER)
def cancel_upload(upload_id: str, caller: Caller, dependencies: Injected) -> Upload:
    """Drop an upload and its parts. One that is completed or has expired stays as it is (409)."""
    return service.cancel(dependencies, caller.project_id, upload_id)
