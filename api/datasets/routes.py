"""/v1/datasets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool

from api.audit.actor import By
from api.datasets import service
from api.datasets.request import FORM_TEXTS, LIMITS, AddDatasetFile, CreateDataset
from api.datasets.schemas import (
    Dataset,
    DatasetDeleted,
    DatasetList,
    DatasetPair,
    DatasetPairAdded,
    DatasetPairDeleted,
    DatasetPairList,
    DatasetReport,
    DatasetRevisionList,
)
from api.dependencies import Caller, Injected
from api.errors.errors import FileNotProcessed, ReportNotReady
from api.errors.responses import BODY, DISK_ERRORS, FORM, ONCE, failures
from api.errors.validated import validated
from api.files import reservation
from api.files.form import Form
from api.files.receive import received_form
from api.files.report import WORDS
from api.http.free_space import require_free_space
from api.http.idempotency import IdempotencyKey, once
from api.http.json_body import JsonBody, ParsedBody
from api.http.paging import After
from api.http.route_rules import form_of, requires
from api.http.transactions import transaction
from api.http.turns import Claimant, Turns
from store.datasets import datasets
from store.errors import CursorUnknown, DatasetNotFound, PairNotFound, QuotaExceeded, RevisionNotFound
from store.roles import Role
from store.tenants import audit
from store.tenants.api_keys import Principal

INSERTED_AT_ONCE = 2  # files whose pairs are added at a time; each needs a connection to the database meanwhile
PAIR_BYTES = 2 * LIMITS.image_bytes  # a pair has two images

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
Revision = Annotated[int | None, Query(ge=1, description="The latest one without it.")]
IMAGES = ("chosen", "rejected")
REPORT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": DatasetReport,
        "description": "The report.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": WORDS}},
    },
}


def _body(model: str) -> dict[str, Any]:
    """The schema of a body that its service parses; api/openapi/document.py adds it."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


PAIR_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["prompt", "chosen"],
                    "additionalProperties": False,
                    "properties": {
                        "prompt": {"type": "string", "maxLength": 4000},
                        "chosen": {"type": "string", "format": "binary", "description": "PNG, JPEG or WebP."},
                        "rejected": {
                            "type": "string",
                            "format": "binary",
                            "description": "Omit it if there is none: the base model generates it when a job needs it.",
                        },
                        "split": {"type": "string", "enum": ["train", "validation"]},
                        "weight": {"type": "number", "exclusiveMinimum": 0},
                        "annotator": {"type": "string", "maxLength": 200},
                        "seed": {"type": "integer", "minimum": 0},
                    },
                },
                "example": {
                    "prompt": "a red fox",
                    "chosen": "(the bytes of a PNG)",
                    "rejected": "(the bytes of a PNG)",
                    "annotator": "ada",
                },
            }
        },
    }
}


async def _content(request: Request) -> bytes:
    return await request.body()


@router.post(
    "",
    operation_id="createDataset",
    response_model=Dataset,
    responses=failures(*BODY, *ONCE, QuotaExceeded, FileNotProcessed),
    openapi_extra=_body("CreateDataset"),
)
@requires(Role.MEMBER)
async def create_dataset(
    body: ParsedBody, request: Request, caller: Caller, dependencies: Injected, idempotency_key: IdempotencyKey = None
) -> Dataset | JSONResponse:
    """Make a dataset, empty or of the pairs of processed files. This is its revision 1."""
    new = validated(body.document, CreateDataset)

    def create() -> Dataset | JSONResponse:
        with transaction(dependencies) as work:
            create = partial(service.create, work, dependencies.blobs, caller, new)
            return once(work, caller, idempotency_key, "createDataset", body.sha256, create)

    return await _inserted(request, caller, create)


async def _inserted(
    request: Request, caller: Principal, insert: Callable[[], Dataset | JSONResponse]
) -> Dataset | JSONResponse:
    """In its turn: the pairs of a large file take a thread and a connection to the database for many seconds."""
    inserting: Turns = request.app.state.inserting
    async with inserting.turn(Claimant(caller.project_id, caller.key_id)):
        return await run_in_threadpool(insert)


@router.get("", operation_id="listDatasets", responses=failures(CursorUnknown))
@requires(Role.READ_ONLY)
def list_datasets(
    caller: Caller, dependencies: Injected, after: After = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> DatasetList:
    """The project's datasets, newest first."""
    with transaction(dependencies) as work:
        return service.page(work.session, caller.project_id, after=after, limit=limit)


@router.get("/{dataset_id}", operation_id="retrieveDataset", responses=failures(DatasetNotFound))
@requires(Role.READ_ONLY)
def retrieve_dataset(dataset_id: str, caller: Caller, dependencies: Injected) -> Dataset:
    """One dataset."""
    with transaction(dependencies) as work:
        return Dataset.of(datasets.get(work.session, caller.project_id, dataset_id))


@router.delete("/{dataset_id}", operation_id="deleteDataset", responses=failures(DatasetNotFound))
@requires(Role.MEMBER)
def delete_dataset(dataset_id: str, caller: Caller, by: By, dependencies: Injected) -> DatasetDeleted:
    """Delete a dataset. Jobs that were made of it, ended or not, keep the revision that they pinned."""
    with transaction(dependencies) as work:
        audit.record(work.session, by, "dataset.deleted", dataset_id)
        return DatasetDeleted(id=datasets.delete(work.session, caller.project_id, dataset_id).id)


@router.get(
    "/{dataset_id}/revisions", operation_id="listDatasetRevisions", responses=failures(CursorUnknown, DatasetNotFound)
)
@requires(Role.READ_ONLY)
def list_revisions(
    dataset_id: str,
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> DatasetRevisionList:
    """What changed the dataset, newest first. A revision's id can stand in a job's `training_file`."""
    with transaction(dependencies) as work:
        return service.revision_page(work.session, caller.project_id, dataset_id, after=after, limit=limit)


@router.get(
    "/{dataset_id}/report",
    operation_id="retrieveDatasetReport",
    response_model=None,
    responses=REPORT_RESPONSES | failures(DatasetNotFound, RevisionNotFound, ReportNotReady),
)
@requires(Role.READ_ONLY)
async def retrieve_report(
    dataset_id: str,
    request: Request,
    caller: Caller,
    dependencies: Injected,
    revision: Revision = None,
    form: Annotated[Literal["json", "text"], Query(alias="format")] = "json",
) -> DatasetReport | PlainTextResponse:
    """What a revision shows as a whole: repetitions, contradictions, leakage, sizes, agreement; as JSON or in words.
    While images of large files are still to be measured, the answer is 409; the same request again continues."""
    reviewing: Turns = request.app.state.reviewing
    await run_in_threadpool(service.check_there, dependencies, caller.project_id, dataset_id)
    async with reviewing.turn(Claimant(caller.project_id, caller.key_id)):
        number, found = await run_in_threadpool(service.report, dependencies, caller.project_id, dataset_id, revision)
    return DatasetReport.at(dataset_id, number, found) if form == "json" else PlainTextResponse(found.in_words())


@router.post(
    "/{dataset_id}/files",
    operation_id="addDatasetFile",
    response_model=Dataset,
    responses=failures(*BODY, *ONCE, QuotaExceeded, DatasetNotFound, FileNotProcessed),
    openapi_extra=_body("AddDatasetFile"),
)
@requires(Role.MEMBER)
async def add_file(
    dataset_id: str,
    content: Annotated[bytes, Depends(_content)],
    request: Request,
    caller: Caller,
    dependencies: Injected,
    idempotency_key: IdempotencyKey = None,
) -> Dataset | JSONResponse:
    """Add all pairs of a processed file, as one new revision."""
    await run_in_threadpool(service.check_there, dependencies, caller.project_id, dataset_id)
    body = JsonBody.parse(content)
    added = validated(body.document, AddDatasetFile)

    def add() -> Dataset | JSONResponse:
        with transaction(dependencies) as work:
            add = partial(service.add_file, work, dependencies.blobs, caller, dataset_id, added)
            return once(work, caller, idempotency_key, "addDatasetFile", f"{dataset_id} {body.sha256}", add)

    return await _inserted(request, caller, add)


@router.post(
    "/{dataset_id}/pairs",
    operation_id="createDatasetPair",
    dependencies=[Depends(require_free_space)],
    response_model=DatasetPairAdded,
    responses=failures(*FORM, *ONCE, *DISK_ERRORS, QuotaExceeded, DatasetNotFound),
    openapi_extra=PAIR_FORM,
)
@requires(Role.MEMBER, max_body=form_of(lambda _: PAIR_BYTES))
async def create_pair(
    dataset_id: str, request: Request, caller: Caller, dependencies: Injected, idempotency_key: IdempotencyKey = None
) -> DatasetPairAdded | JSONResponse:
    """Add one pair, as one new revision. Images are checked and normalised as those of an archive are."""
    await run_in_threadpool(service.check_there, dependencies, caller.project_id, dataset_id)
    form = Form(IMAGES, FORM_TEXTS, optional=("rejected",))
    decoding: Turns = request.app.state.decoding
    reserved = await run_in_threadpool(reservation.in_quota, dependencies, caller, idempotency_key)
    async with received_form(request, reserved, form) as came:
        async with decoding.turn(Claimant(caller.project_id, f"pairs {caller.key_id}")):
            sent = await run_in_threadpool(service.decode, came)
        return await run_in_threadpool(service.add_pair, dependencies, caller, dataset_id, sent, idempotency_key)


@router.get(
    "/{dataset_id}/pairs",
    operation_id="listDatasetPairs",
    responses=failures(CursorUnknown, DatasetNotFound, RevisionNotFound),
)
@requires(Role.READ_ONLY)
def list_pairs(
    dataset_id: str,
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    revision: Revision = None,
) -> DatasetPairList:
    """The pairs of a revision, in the order of their adding."""
    with transaction(dependencies) as work:
        return service.pair_page(work.session, caller.project_id, dataset_id, revision, after=after, limit=limit)


@router.get(
    "/{dataset_id}/pairs/{pair_id}",
    operation_id="retrieveDatasetPair",
    responses=failures(DatasetNotFound, PairNotFound),
)
@requires(Role.READ_ONLY)
def retrieve_pair(dataset_id: str, pair_id: str, caller: Caller, dependencies: Injected) -> DatasetPair:
    """One pair, also one that was removed: older revisions hold it."""
    with transaction(dependencies) as work:
        return DatasetPair.of(service.pair(work.session, caller.project_id, dataset_id, pair_id))


@router.delete(
    "/{dataset_id}/pairs/{pair_id}", operation_id="deleteDatasetPair", responses=failures(DatasetNotFound, PairNotFound)
)
@requires(Role.MEMBER)
def delete_pair(dataset_id: str, pair_id: str, caller: Caller, by: By, dependencies: Injected) -> DatasetPairDeleted:
    """Remove a pair, as one new revision; those before keep it."""
    with transaction(dependencies) as work:
        audit.record(work.session, by, "dataset.pair_deleted", pair_id, {"dataset_id": dataset_id})
        return service.remove_pair(work.session, caller.project_id, dataset_id, pair_id)
