"""The rules of uploads in parts: what may be declared, what may be added, and what becomes a file."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.dependencies import Dependencies
from api.errors.errors import InvalidRequest, RequestTooLarge
from api.errors.field_errors import FieldError
from api.errors.validated import validated
from api.files import service as file_service
from api.files.filenames import clean
from api.files.intake_policy import POLICY_FIELDS, IntakePolicy, stored_policy
from api.files.receive import Received
from api.http.json_body import JsonBody
from api.http.paging import cut
from api.http.transactions import UnitOfWork, transaction
from api.uploads.assemble import Assembled, assembled
from api.uploads.request import OPENAI_FIELDS, CompleteUpload, CreateUpload, too_large
from api.uploads.schemas import Upload, UploadPart, UploadPartList
from store.blobs import upload_parts
from store.blobs.blobs import StoredBlob
from store.errors import BlobMissing, TooManyParts, UploadNotPending
from store.files import files, uploads
from store.files.uploads import PART_BYTES, NewPart, NewUpload
from store.ids import new_id
from store.settings import Settings
from store.tables import upload as upload_tables
from store.tables.base import Json
from store.tenants import quotas
from store.tenants.limits import ProjectLimits


def declared(settings: Settings, project_id: str, body: JsonBody) -> NewUpload:
    """Raise InvalidRequest for what cannot be begun."""
    request = validated(body.document, CreateUpload, OPENAI_FIELDS)
    if request.bytes > settings.max_upload_bytes:
        raise too_large(request.bytes, settings.max_upload_bytes)
    return NewUpload(project_id, clean(request.filename), request.purpose, request.bytes, _policy(request))


def _policy(request: CreateUpload) -> Json | None:
    return stored_policy(
        IntakePolicy.model_validate(request.model_dump(include=set(POLICY_FIELDS), exclude_unset=True))
    )


def create(work: UnitOfWork, new: NewUpload, limits: ProjectLimits, *, lifetime_seconds: float) -> Upload:
    """Raise QuotaExceeded where it does not fit into the project's quota."""
    quotas.require_upload(work.session, new.project_id, limits, new.bytes)
    return Upload.of(uploads.create(work.session, new, lifetime_seconds=lifetime_seconds))


def shown(session: Session, project_id: str, upload_id: str) -> Upload:
    return _shown(session, uploads.get(session, project_id, upload_id))


def check_open(dependencies: Dependencies, project_id: str, upload_id: str) -> upload_tables.Upload:
    """Before a part's body is read: whether it can be taken at all."""
    with transaction(dependencies) as work:
        return uploads.pending(work.session, project_id, upload_id)


def add_part(dependencies: Dependencies, project_id: str, upload_id: str, sent: Received) -> UploadPart:
    """Store the bytes, then the row that makes them a part; of an upload that ended meanwhile nothing stays."""
    _check_part(sent)
    new = NewPart(new_id("part"), sent.blob.bytes, sent.blob.sha256)
    check_open(dependencies, project_id, upload_id)  # receiving may have taken long; storing does not
    upload_parts.save(dependencies.blobs.store, upload_id, new.id, sent.path)
    try:
        with transaction(dependencies) as work:
            return UploadPart.of(uploads.add_part(work.session, project_id, upload_id, new))
    except UploadNotPending:
        upload_parts.remove(dependencies.blobs.store, upload_id)
        raise
    except TooManyParts:
        upload_parts.discard(dependencies.blobs.store, upload_id, new.id)
        raise


def parts(session: Session, project_id: str, upload_id: str, *, after: str | None, limit: int) -> UploadPartList:
    uploads.get(session, project_id, upload_id)
    rows, has_more = cut(uploads.parts(session, upload_id, after=after, limit=limit + 1), limit)
    data = [UploadPart.of(row) for row in rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return UploadPartList(data=data, has_more=has_more, first_id=first, last_id=last)


def cancel(dependencies: Dependencies, project_id: str, upload_id: str) -> Upload:
    with transaction(dependencies) as work:
        cancelled = _shown(work.session, uploads.cancel(work.session, project_id, upload_id))
    upload_parts.remove(dependencies.blobs.store, upload_id)
    return cancelled


def complete(dependencies: Dependencies, project_id: str, upload_id: str, content: bytes) -> Upload:
    """The file that the parts make; the same one if the client repeats the request."""
    with transaction(dependencies) as work:
        upload = uploads.get(work.session, project_id, upload_id)
        if upload.status == "completed":
            return _shown(work.session, upload)
        uploads.require_pending(upload)
    request = validated(JsonBody.parse(content).document, CompleteUpload, OPENAI_FIELDS)  # outside a transaction
    with transaction(dependencies) as work:
        found = uploads.parts_by_id(work.session, upload_id, request.part_ids)
    chosen = _chosen(upload, request, found)
    try:
        completed = _assemble(dependencies, upload, request, chosen)
    except (BlobMissing, UploadNotPending):
        other = _completed_by_another(dependencies, upload)
        if other is None:
            raise
        return other
    upload_parts.remove(dependencies.blobs.store, upload_id)
    return completed


def _completed_by_another(dependencies: Dependencies, seen: upload_tables.Upload) -> Upload | None:
    """Its file is the answer here too. Raises UploadNotPending after a cancellation or expiry; None: still pending."""
    with transaction(dependencies) as work:
        upload = uploads.get(work.session, seen.project_id, seen.id)
        if upload.status == "completed":
            return _shown(work.session, upload)
        uploads.require_pending(upload)
        return None


def _check_part(sent: Received) -> None:
    field_errors = list(sent.field_errors)
    given = sent.fields.get("sha256")
    if sent.filename is not None and sent.blob.bytes == 0:
        field_errors.append(FieldError("data", "data: the part is empty.", "invalid_value"))
    if given is not None and given.lower() != sent.blob.sha256:
        field_errors.append(_mismatch("sha256", sent.blob.sha256))
    if field_errors:
        raise InvalidRequest(field_errors)
    if sent.blob.bytes > PART_BYTES:
        raise RequestTooLarge(PART_BYTES)


def _chosen(
    upload: upload_tables.Upload, request: CompleteUpload, found: dict[str, upload_tables.UploadPart]
) -> list[upload_tables.UploadPart]:
    field_errors = [
        FieldError(
            f"part_ids.{index}", f"part_ids.{index}: not a part of this upload (given: '{part_id[:80]}').", "not_found"
        )
        for index, part_id in enumerate(request.part_ids)
        if part_id not in found
    ]
    if field_errors:
        raise InvalidRequest(field_errors)
    chosen = [found[part_id] for part_id in request.part_ids]
    size = sum(part.bytes for part in chosen)
    if size != upload.bytes:
        message = f"part_ids: these parts are {size} bytes, but the upload was declared to be {upload.bytes}."
        raise InvalidRequest([FieldError("part_ids", message, "wrong_size")])
    return chosen


def _assemble(
    dependencies: Dependencies,
    upload: upload_tables.Upload,
    request: CompleteUpload,
    chosen: Sequence[upload_tables.UploadPart],
) -> Upload:
    """Outside any transaction, as it may take long; whether the upload is still pending is decided at its end."""
    with assembled(dependencies.blobs.store, chosen, dependencies.settings.upload_directory) as whole:
        _check_digests(request, whole)
        check_open(dependencies, upload.project_id, upload.id)
        dependencies.blobs.take_file(whole.path, whole.blob)
    with transaction(dependencies) as work:
        return _complete(work, upload, whole.blob)


def _check_digests(request: CompleteUpload, whole: Assembled) -> None:
    sums = (("md5", request.md5, whole.md5), ("sha256", request.sha256, whole.blob.sha256))
    field_errors = [_mismatch(name, actual) for name, given, actual in sums if given is not None and given != actual]
    if field_errors:
        raise InvalidRequest(field_errors)


def _complete(work: UnitOfWork, seen: upload_tables.Upload, blob: StoredBlob) -> Upload:
    upload = uploads.lock(work.session, seen.project_id, seen.id)
    if upload.status != "completed":  # else another completion was first, and its file is the answer
        uploads.require_pending(upload)
        file = file_service.create(work, upload.project_id, upload.filename, blob, upload.policy)
        uploads.complete(work.session, upload, file_id=file.id)
    return _shown(work.session, upload)


def _shown(session: Session, upload: upload_tables.Upload) -> Upload:
    undeleted = [file for file in files.by_ids(session, [upload.file_id]) if file.deleted_at is None]
    return Upload.of(upload, undeleted[0] if undeleted else None)


def _mismatch(name: str, actual: str) -> FieldError:
    return FieldError(name, f"{name}: the received bytes have {actual}; send them again.", "checksum_mismatch")
