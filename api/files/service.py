"""The rules of files: what may be uploaded, and what of it a download returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.errors.errors import InvalidRequest, NoReport
from api.errors.field_errors import FieldError
from api.files.elsewhere import may_redirect
from api.files.filenames import attachment, clean
from api.files.intake_policy import policy_of
from api.files.ranges import Span, etag, etag_matches, requested_span
from api.files.receive import Received
from api.files.schemas import File, FileDeleted, FileList
from api.http.paging import cut
from api.http.transactions import UnitOfWork
from intake import Report
from store.blobs.blobs import Blobs, StoredBlob
from store.files import files
from store.files.files import NewFile
from store.tables.base import Json
from store.tables.file import File as FileRow
from store.tenants import quotas
from store.tenants.api_keys import Principal

UPLOAD_PURPOSE = "fine-tune"


def checked_policy(upload: Received) -> Json | None:
    """What was decided about doubtful rows. Raise InvalidRequest with every error of the form."""
    policy, policy_errors = policy_of(upload.fields)
    field_errors = [*upload.field_errors, *policy_errors]
    purpose = upload.fields.get("purpose")
    if purpose is None:
        field_errors.append(FieldError("purpose", "purpose: required, but not given.", "missing_field"))
    elif purpose != UPLOAD_PURPOSE:
        message = f"purpose: should be '{UPLOAD_PURPOSE}' (given: '{purpose[:80]}')."
        field_errors.append(FieldError("purpose", message, "invalid_value"))
    if field_errors:
        raise InvalidRequest(field_errors)
    return policy


def require_quota(session: Session, caller: Principal, size: int) -> None:
    quotas.require_storage(session, caller.project_id, caller.limits, size)


def create_within_quota(
    work: UnitOfWork, caller: Principal, filename: str, blob: StoredBlob, policy: Json | None
) -> File:
    """As ``create``; raise QuotaExceeded where it does not fit into the project's quota."""
    require_quota(work.session, caller, blob.bytes)
    quotas.require_waiting_file(work.session, caller.project_id, caller.limits)
    return create(work, caller.project_id, filename, blob, policy)


def create(work: UnitOfWork, project_id: str, filename: str, blob: StoredBlob, policy: Json | None) -> File:
    """``filename`` as the client gave it; the blob is stored already."""
    new = NewFile(project_id, clean(filename), UPLOAD_PURPOSE, blob.bytes, blob.sha256, policy)
    row = files.create(work.session, new, status="uploaded")
    work.files_to_read.append(row.id)
    return File.of(row)


def page(
    session: Session, project_id: str, *, after: str | None, limit: int, purpose: str | None, oldest_first: bool
) -> FileList:
    rows = files.newest_first(
        session, project_id, after=after, limit=limit + 1, purpose=purpose, oldest_first=oldest_first
    )
    shown, has_more = cut(rows, limit)
    data = [File.of(row) for row in shown]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FileList(data=data, has_more=has_more, first_id=first, last_id=last)


def report(session: Session, project_id: str, file_id: str) -> Report:
    """Raise FileNotFound, or NoReport for a file that has not been read yet or is no upload."""
    row = files.get(session, project_id, file_id)
    if row.report is None:
        raise NoReport(row.id, row.status)
    return Report.from_json(row.report)


def delete(session: Session, project_id: str, file_id: str) -> FileDeleted:
    return FileDeleted(id=files.delete(session, project_id, file_id).id)


@dataclass(frozen=True)
class Content:
    """A download's status, headers and bytes; ``body`` is None where there are none to send."""

    status: int
    headers: dict[str, str]
    body: Iterator[bytes] | None


def content(row: FileRow, blobs: Blobs, request_headers: Mapping[str, str], *, head: bool, redirect: bool) -> Content:
    """``request_headers``: If-None-Match, Range and If-Range count. ``redirect``: to the blob store if it can."""
    tag = etag(row.sha256)
    headers = {"etag": tag, "accept-ranges": "bytes", "cache-control": "private, no-cache"}
    if etag_matches(tag, request_headers.get("if-none-match")):
        return Content(304, headers, None)
    headers["content-disposition"] = attachment(row.filename)
    # RFC 9110 gives Range a meaning for GET alone.
    span = (
        None
        if head
        else requested_span(request_headers.get("range"), request_headers.get("if-range"), tag=tag, size=row.bytes)
    )
    elsewhere = blobs.signed_url(row.sha256) if redirect and not head and may_redirect(request_headers) else None
    if elsewhere is not None:  # the client repeats its Range there
        # The name stands here, as blobs have none: curl -OJ takes it.
        answer_headers = {"location": elsewhere, "content-disposition": headers["content-disposition"]}
        return Content(302, answer_headers | {"cache-control": "private, no-store"}, None)
    sent = span or Span(0, row.bytes)
    headers["content-length"] = str(sent.length)
    if span is not None:
        headers["content-range"] = f"bytes {span.start}-{span.start + span.length - 1}/{row.bytes}"
    body = None if head else blobs.stream(row.sha256, start=sent.start, length=sent.length)
    return Content(200 if span is None else 206, headers, body)
