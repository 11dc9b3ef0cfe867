from __future__ import annotations

import pytest
from obstore.exceptions import GenericError
from sqlalchemy import text

from store.blobs import upload_parts
from store.files import uploads
from store.files.uploads import NewPart, NewUpload
from store.ids import new_id
from store.tables.upload import Upload
from worker.dispatcher.dispatcher import tick
from worker.dispatcher.upload_expiry import SWEEP_AFTER_SECONDS
from worker.resources import Resources

pytestmark = pytest.mark.integration


def begin(resources: Resources, project_id: str) -> str:
    """With one part, of 3 bytes."""
    part = NewPart(new_id("part"), 3, "0" * 64)
    new = NewUpload(project_id, "a.zip", "fine-tune", 3)
    with resources.sessions.begin() as session:
        upload_id = uploads.create(session, new, lifetime_seconds=3600).id
        uploads.add_part(session, project_id, upload_id, part)
    keep(resources, upload_id, part.id)
    return upload_id


def keep(resources: Resources, upload_id: str, part_id: str) -> None:
    path = resources.settings.home / "received"
    path.write_bytes(b"abc")
    upload_parts.save(resources.blobs.store, upload_id, part_id, path)


def stored(resources: Resources, upload_id: str) -> int:
    return len(list((resources.settings.home / "blobs" / "uploads").glob(f"{upload_id}/*")))


def set_back(resources: Resources, column: str, upload_id: str, seconds: float) -> None:
    statement = text(f"UPDATE uploads SET {column} = now() - :age * interval '1 second' WHERE id = :id")  # noqa: S608
    with resources.sessions.begin() as session:
        session.execute(statement, {"age": seconds, "id": upload_id})


def read(resources: Resources, upload_id: str) -> Upload:
    with resources.sessions() as session:
        return session.get_one(Upload, upload_id)


def test_a_tick_expires_what_was_not_completed_in_time_and_takes_its_bytes(
    resources: Resources, project_id: str
) -> None:
    late, early = begin(resources, project_id), begin(resources, project_id)
    set_back(resources, "expires_at", late, 1)
    tick(resources)
    assert (read(resources, late).status, stored(resources, late)) == ("expired", 0)
    assert (read(resources, early).status, stored(resources, early)) == ("pending", 1)


def test_bytes_that_the_store_could_not_remove_are_removed_in_a_later_tick(
    resources: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = begin(resources, project_id)
    with resources.sessions.begin() as session:
        uploads.cancel(session, project_id, upload_id)
    set_back(resources, "ended_at", upload_id, SWEEP_AFTER_SECONDS + 1)

    def unreachable(*_: object) -> None:
        raise GenericError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(upload_parts, "remove", unreachable)
        tick(resources)
    assert (read(resources, upload_id).swept_at, stored(resources, upload_id)) == (None, 1)
    tick(resources)
    assert read(resources, upload_id).swept_at is not None
    assert stored(resources, upload_id) == 0


def test_a_part_that_came_in_just_as_its_upload_ended_goes_once_the_upload_has_ended(
    resources: Resources, project_id: str
) -> None:
    upload_id = begin(resources, project_id)
    with resources.sessions.begin() as session:
        uploads.cancel(session, project_id, upload_id)
    keep(resources, upload_id, "part-late")
    tick(resources)
    assert stored(resources, upload_id) == 2  # a request may be at work on it yet
    set_back(resources, "ended_at", upload_id, SWEEP_AFTER_SECONDS + 1)
    tick(resources)
    assert stored(resources, upload_id) == 0
    assert read(resources, upload_id).swept_at is not None
    with resources.sessions() as session:
        assert uploads.parts(session, upload_id, after=None, limit=10) == []
