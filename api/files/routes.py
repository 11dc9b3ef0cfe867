"""/v1/files."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.audit.actor import By
from api.dependencies import Caller, Dependencies, Injected
from api.errors.errors import NoReport, RangeNotSatisfiable
from api.errors.responses import DISK_ERRORS, FORM, ONCE, failures
from api.files import reservation, service
from api.files.intake_policy import FORM_PROPERTIES, POLICY_FIELDS
from api.files.receive import Received, received
from api.files.report import WORDS, FileReport
from api.files.schemas import File, FileDeleted, FileList
from api.http.documented_headers import named
from api.http.free_space import require_free_space
from api.http.idempotency import IdempotencyKey, once, replay
from api.http.paging import After
from api.http.route_rules import form_of, requires
from api.http.transactions import transaction
from store.errors import BlobMissing, CursorUnknown, FileInUse, FileNotFound, QuotaExceeded
from store.files import files
from store.roles import Role
from store.tables.base import Json
from store.tenants import audit
from store.tenants.api_keys import Principal

router = APIRouter(prefix="/v1/files", tags=["files"])
BINARY = "application/octet-stream"
REPORT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": FileReport,
        "description": "The report.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": WORDS}},
    },
}
UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "Pairs in any format of docs/reference/formats.md.",
                        },
                        "purpose": {"type": "string", "enum": [service.UPLOAD_PURPOSE]},
                        **FORM_PROPERTIES,
                    },
                },
                "example": {"file": "(the bytes of pairs.zip)", "purpose": "fine-tune", "ties": "drop"},
            }
        },
    }
}
BYTES = {"type": "string", "format": "binary"}
DOWNLOAD = ("etag", "accept-ranges", "cache-control", "content-disposition")
CONTENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": {BINARY: {"schema": BYTES}}} | named(*DOWNLOAD),
    206: {"description": "The requested range.", "content": {BINARY: {"schema": BYTES}}}
    | named(*DOWNLOAD, "content-range"),
    302: {"description": "The bytes are at `location`, a signed URL of the object store that needs no key."}
    | named("location", "content-disposition", "cache-control"),
    304: {"description": "The client has this content already."} | named("etag", "accept-ranges", "cache-control"),
}


@router.post(
    "",
    operation_id="createFile",
    dependencies=[Depends(require_free_space)],
    response_model=File,
    responses=failures(*FORM, *ONCE, *DISK_ERRORS, QuotaExceeded),
    openapi_extra=UPLOAD_FORM,
)
@requires(Role.MEMBER, max_body=form_of(lambda settings: settings.max_upload_bytes))
async def create_file(
    request: Request, caller: Caller, dependencies: Injected, idempotency_key: IdempotencyKey = None
) -> File | JSONResponse:
    """Upload pairs. The file is read in the background: `status` becomes `processed` or `error`."""
    reserve = partial(reservation.in_quota, dependencies, caller, idempotency_key, replayed_bytes=True)
    reserved = await run_in_threadpool(reserve)
    async with received(request, reserved, texts=("purpose", *POLICY_FIELDS)) as upload:
        policy = service.checked_policy(upload)
        return await run_in_threadpool(_store, dependencies, caller, upload, policy, idempotency_key)


def _store(
    dependencies: Dependencies, caller: Principal, upload: Received, policy: Json | None, key: str | None
) -> File | JSONResponse:
    filename = upload.filename or ""
    # Without a policy the text is that of versions before there were any: a key sent to them holds.
    request = f"{upload.blob.sha256} {filename}{f' {sorted(policy.items())}' if policy else ''}"
    with transaction(dependencies) as work:
        replayed = replay(work, caller, key, "createFile", request)
        if replayed is not None:
            return replayed
        service.require_quota(work.session, caller, upload.blob.bytes)
    # Between the transactions: storing gigabytes must not hold a database connection.
    dependencies.blobs.take_file(upload.path, upload.blob)
    with transaction(dependencies) as work:
        create = partial(service.create_within_quota, work, caller, filename, upload.blob, policy)
        return once(work, caller, key, "createFile", request, create)


@router.get("", operation_id="listFiles", responses=failures(CursorUnknown))
@requires(Role.READ_ONLY)
def list_files(
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> FileList:
    """The project's files, by creation time."""
    with transaction(dependencies) as work:
        return service.page(
            work.session,
            caller.project_id,
            after=after,
            limit=limit,
            purpose=purpose,
            oldest_first=order == "asc",
        )


@router.get("/{file_id}", operation_id="retrieveFile", responses=failures(FileNotFound))
@requires(Role.READ_ONLY)
def retrieve_file(file_id: str, caller: Caller, dependencies: Injected) -> File:
    """One file."""
    with transaction(dependencies) as work:
        return File.of(files.get(work.session, caller.project_id, file_id))


@router.get(
    "/{file_id}/report",
    operation_id="retrieveFileReport",
    response_model=None,
    responses=REPORT_RESPONSES | failures(FileNotFound, NoReport),
)
@requires(Role.READ_ONLY)
def retrieve_file_report(
    file_id: str,
    caller: Caller,
    dependencies: Injected,
    form: Annotated[Literal["json", "text"], Query(alias="format")] = "json",
) -> FileReport | PlainTextResponse:
    """What was read, dropped and found in an uploaded archive, as JSON or in words. An addition."""
    with transaction(dependencies) as work:
        found = service.report(work.session, caller.project_id, file_id)
    return FileReport.of(found) if form == "json" else PlainTextResponse(found.in_words())


@router.delete("/{file_id}", operation_id="deleteFile", responses=failures(FileNotFound, FileInUse))
@requires(Role.MEMBER)
def delete_file(file_id: str, caller: Caller, by: By, dependencies: Injected) -> FileDeleted:
    """Delete a file that no unfinished job needs."""
    with transaction(dependencies) as work:
        audit.record(work.session, by, "file.deleted", file_id)
        return service.delete(work.session, caller.project_id, file_id)


@router.get(
    "/{file_id}/content",
    operation_id="downloadFile",
    response_class=Response,
    responses=CONTENT_RESPONSES | failures(FileNotFound, RangeNotSatisfiable, BlobMissing),
)
@requires(Role.READ_ONLY)
def download_file(file_id: str, request: Request, caller: Caller, dependencies: Injected) -> Response:
    """The file's bytes, or where they are. Takes `Range`, `If-Range` and `If-None-Match`; the ETag is the SHA-256."""
    return _download(file_id, request, caller, dependencies, head=False)


@router.head(
    "/{file_id}/content",
    operation_id="headFileContent",
    response_class=Response,
    responses=failures(FileNotFound) | {200: {"description": "The headers of a download."} | named(*DOWNLOAD)},
)
@requires(Role.READ_ONLY)
def head_file_content(file_id: str, request: Request, caller: Caller, dependencies: Injected) -> Response:
    """The headers of a download, without the bytes."""
    return _download(file_id, request, caller, dependencies, head=True)


def _download(file_id: str, request: Request, caller: Principal, dependencies: Dependencies, *, head: bool) -> Response:
    with transaction(dependencies) as work:
        row = files.get(work.session, caller.project_id, file_id)
    redirect = dependencies.settings.redirect_downloads
    sent = service.content(row, dependencies.blobs, request.headers, head=head, redirect=redirect)
    if sent.body is None:
        return Response(None, sent.status, sent.headers, None if sent.status == 302 else BINARY)
    return StreamingResponse(sent.body, sent.status, sent.headers, BINARY)
