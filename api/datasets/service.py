"""The rules of datasets: what may be added, what a change is called, what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api.datasets import pair_images, review
from api.datasets.pair_images import NormalisedImage
from api.datasets.pair_lists import pairs_of
from api.datasets.request import AddDatasetFile, CreateDataset, PairFields, pair_fields
from api.datasets.revision_ids import named
from api.datasets.schemas import (
    Dataset,
    DatasetList,
    DatasetPair,
    DatasetPairAdded,
    DatasetPairDeleted,
    DatasetPairList,
    DatasetRevision,
    DatasetRevisionList,
)
from api.dependencies import Dependencies
from api.errors.errors import FileNotProcessed, InvalidRequest
from api.errors.field_errors import FieldError
from api.errors.table import message_of, row_of
from api.files.receive import ReceivedForm
from api.http.idempotency import once
from api.http.paging import cut
from api.http.transactions import UnitOfWork, transaction
from intake import Report
from store.blobs.blobs import Blobs
from store.datasets import datasets, image_facts
from store.datasets.datasets import NewPair
from store.errors import CursorUnknown, FileNotFound, RejectedNotFound
from store.files import files
from store.tables import dataset as dataset_tables
from store.tables.file import File
from store.tenants import quotas
from store.tenants.api_keys import Principal

PairSide = Literal["chosen", "rejected"]


# ------------------------------------------------------------------------------------------------- a dataset itself


def create(work: UnitOfWork, blobs: Blobs, caller: Principal, request: CreateDataset) -> Dataset:
    named_files = {f"file_ids.{index}": file_id for index, file_id in enumerate(request.file_ids or [])}
    found = _processed(work.session, caller.project_id, named_files)
    quotas.require_pairs(work.session, caller.project_id, caller.limits, sum(file.pairs_count or 0 for file in found))
    first = (pair for file in found for pair in _pairs(blobs, file))
    return Dataset.of(datasets.create(work.session, caller.project_id, request.name, request.metadata, first))


def check_there(dependencies: Dependencies, project_id: str, dataset_id: str) -> None:
    """Before a body is read."""
    with transaction(dependencies) as work:
        datasets.get(work.session, project_id, dataset_id)


def page(session: Session, project_id: str, *, after: str | None, limit: int) -> DatasetList:
    rows, has_more = cut(datasets.newest_first(session, project_id, after=after, limit=limit + 1), limit)
    data = [Dataset.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return DatasetList(data=data, has_more=has_more, first_id=first, last_id=last)


def revision_page(
    session: Session, project_id: str, dataset_id: str, *, after: str | None, limit: int
) -> DatasetRevisionList:
    dataset = datasets.get(session, project_id, dataset_id)
    before = _before(dataset, after) if after is not None else None
    rows, has_more = cut(datasets.revisions(session, dataset, before=before, limit=limit + 1), limit)
    data = [DatasetRevision.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return DatasetRevisionList(data=data, has_more=has_more, first_id=first, last_id=last)


def _before(dataset: dataset_tables.Dataset, after: str) -> int:
    """Raises CursorUnknown, as the other lists do."""
    last = named(after)
    if last is None or last.dataset_id != dataset.id or not 0 < (last.revision or 0) <= dataset.revision:
        raise CursorUnknown(after)
    return last.revision or 0


def report(dependencies: Dependencies, project_id: str, dataset_id: str, number: int | None) -> tuple[int, Report]:
    """The revision's number and its review. Raises ReportNotReady."""
    with transaction(dependencies) as work:
        revision = datasets.revision(work.session, datasets.get(work.session, project_id, dataset_id), number)
    review.measure_missing(dependencies, revision)
    return revision.number, review.review(dependencies, revision)


# ------------------------------------------------------------------------------------------------------------- files


def add_file(work: UnitOfWork, blobs: Blobs, caller: Principal, dataset_id: str, request: AddDatasetFile) -> Dataset:
    """All pairs of a processed file."""
    [file] = _processed(work.session, caller.project_id, {"file_id": request.file_id})
    quotas.require_pairs(work.session, caller.project_id, caller.limits, file.pairs_count or 0)
    dataset = datasets.lock(work.session, caller.project_id, dataset_id)
    datasets.add_from_file(work.session, dataset, _pairs(blobs, file), file.id)
    return Dataset.of(dataset)


def _processed(session: Session, project_id: str, named_files: dict[str, str]) -> list[File]:
    """By the parameters that name them. Raises InvalidRequest, or FileNotProcessed when that is all that is wrong."""
    found, field_errors = [], []
    for param, file_id in named_files.items():
        try:
            file = files.get(session, project_id, file_id)
        except FileNotFound as error:
            field_errors.append(FieldError(param, f"{param}: {message_of(error)}", row_of(error).code))
            continue
        found.append(file)
        if file.status == "error":
            field_errors.append(
                FieldError(param, f"{param}: {file.id} cannot be used: {file.status_details}", "invalid_file")
            )
        elif file.status == "processed" and file.pairs_sha256 is None:
            field_errors.append(
                FieldError(param, f"{param}: {file.id} holds no pairs; upload an archive of them.", "invalid_file")
            )
    if field_errors:
        raise InvalidRequest(field_errors)
    unread = [file for file in found if file.status != "processed"]
    if unread:
        raise FileNotProcessed(unread[0].id)
    return found


def _pairs(blobs: Blobs, file: File) -> Iterator[NewPair]:
    for pair in pairs_of(blobs, file.pairs_sha256 or ""):
        yield NewPair(
            pair.prompt,
            pair.chosen,
            pair.rejected,
            pair.split,
            pair.weight,
            pair.annotator,
            pair.seed,
            file_id=file.id,
            file_row=pair.row,
        )


# ------------------------------------------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Sent:
    """A pair as it came, ready to be stored. ``body`` identifies the request."""

    fields: PairFields
    chosen: NormalisedImage
    rejected: NormalisedImage | None
    body: str

    @property
    def images(self) -> list[NormalisedImage]:
        return [self.chosen] if self.rejected is None else [self.chosen, self.rejected]


def decode(form: ReceivedForm) -> Sent:
    """Takes memory and time for its images. Raises InvalidRequest with every error of the form and of the images."""
    fields, field_errors = pair_fields(form.fields)
    came = {name: file for name, file in form.files.items() if file.filename is not None}
    body = json.dumps([form.fields, {name: file.blob.sha256 for name, file in came.items()}], sort_keys=True)
    invalid_params = {field_error.param for field_error in form.field_errors}
    field_errors = [
        *form.field_errors,
        *(field_error for field_error in field_errors if field_error.param not in invalid_params),
    ]
    read = {name: pair_images.read(name, file) for name, file in came.items()}
    field_errors += [found for found in read.values() if isinstance(found, FieldError)]
    good = {name: found for name, found in read.items() if isinstance(found, NormalisedImage)}
    field_errors += _identical(good)
    if fields is None or field_errors:
        raise InvalidRequest(field_errors)
    return Sent(fields, good["chosen"], good.get("rejected"), body)


def _identical(images: dict[str, NormalisedImage]) -> list[FieldError]:
    if len({image_file.blob.sha256 for image_file in images.values()}) == len(images):
        return []
    message = "rejected: the same image as chosen; send another, or leave it out."
    return [FieldError("rejected", message, "pair_identical")]


def add_pair(
    dependencies: Dependencies, caller: Principal, dataset_id: str, sent: Sent, key: str | None
) -> DatasetPairAdded | JSONResponse:
    size = sum(image_file.blob.bytes for image_file in sent.images)
    if key is None:  # a repeated request is answered even over the quota; a new one must not store images in vain
        with transaction(dependencies) as work:
            quotas.require_storage(work.session, caller.project_id, caller.limits, size)
    for image_file in sent.images:  # before the transaction: a slow store must not hold a database connection
        dependencies.blobs.take_file(image_file.path, image_file.blob)
    with transaction(dependencies) as work:
        add = partial(_add_pair, work.session, caller, dataset_id, sent, size)
        return once(work, caller, key, "createDatasetPair", f"{dataset_id} {sent.body}", add)


def _add_pair(session: Session, caller: Principal, dataset_id: str, sent: Sent, size: int) -> DatasetPairAdded:
    quotas.require_storage(session, caller.project_id, caller.limits, size)
    quotas.require_pairs(session, caller.project_id, caller.limits, 1)
    image_facts.save(session, [review.facts_of(image_file.stored) for image_file in sent.images])
    dataset = datasets.lock(session, caller.project_id, dataset_id)
    rejected = sent.rejected.stored if sent.rejected is not None else None
    new = NewPair(
        chosen_sha256=sent.chosen.stored.sha256,
        rejected_sha256=rejected.sha256 if rejected is not None else None,
        **sent.fields.model_dump(),
    )
    [pair_id] = datasets.add(session, dataset, [new], "1 pair added", images_bytes=size)
    pair = datasets.get_pair(session, dataset, pair_id)
    return DatasetPairAdded.with_warnings(pair, review.warnings(pair, sent.chosen.stored, rejected))


def pair_page(
    session: Session, project_id: str, dataset_id: str, number: int | None, *, after: str | None, limit: int
) -> DatasetPairList:
    revision = datasets.revision(session, datasets.get(session, project_id, dataset_id), number)
    rows, has_more = cut(datasets.pairs(session, revision, after=after, limit=limit + 1), limit)
    data = [DatasetPair.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return DatasetPairList(data=data, has_more=has_more, first_id=first, last_id=last, revision=revision.number)


def pair(session: Session, project_id: str, dataset_id: str, pair_id: str) -> dataset_tables.DatasetPair:
    """Also one that was removed: older revisions hold it."""
    return datasets.get_pair(session, datasets.get(session, project_id, dataset_id), pair_id)


def remove_pair(session: Session, project_id: str, dataset_id: str, pair_id: str) -> DatasetPairDeleted:
    dataset = datasets.lock(session, project_id, dataset_id)
    removed = datasets.remove(session, dataset, pair_id)
    return DatasetPairDeleted(id=removed.id, revision=dataset.revision)


def image_of(dependencies: Dependencies, project_id: str, dataset_id: str, pair_id: str, side: PairSide) -> str:
    """The image's SHA-256. Raises RejectedNotFound for a pair that has no such image."""
    with transaction(dependencies) as work:
        row = pair(work.session, project_id, dataset_id, pair_id)
    sha256 = row.chosen_sha256 if side == "chosen" else row.rejected_sha256
    if sha256 is None:
        raise RejectedNotFound(pair_id)
    return sha256
