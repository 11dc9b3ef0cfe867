"""The one transition of an upload, alone and when several come at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import func, select

from store.database import Sessions
from store.errors import TooManyParts, UploadNotFound, UploadNotPending
from store.files import files, uploads
from store.files.files import NewFile
from store.files.uploads import MAX_PARTS, PART_BYTES, NewPart, NewUpload
from store.ids import new_id
from store.tables.upload import Upload, UploadPart

pytestmark = pytest.mark.integration
OVERDUE = -1.0
Action = Callable[[Sessions, str, str], object]


def begin(sessions: Sessions, project_id: str, *, size: int = 10, lifetime: float = 3600) -> str:
    with sessions.begin() as session:
        return uploads.create(session, NewUpload(project_id, "a.zip", "fine-tune", size), lifetime_seconds=lifetime).id


def add(sessions: Sessions, project_id: str, upload_id: str, size: int = 5) -> UploadPart:
    with sessions.begin() as session:
        return uploads.add_part(session, project_id, upload_id, NewPart(new_id("part"), size, "0" * 64))


def complete(sessions: Sessions, project_id: str, upload_id: str) -> None:
    with sessions.begin() as session:
        upload = uploads.lock_pending(session, project_id, upload_id)
        file = files.create(session, NewFile(project_id, "a.zip", "fine-tune", 10, "0" * 64), status="uploaded")
        uploads.complete(session, upload, file_id=file.id)


def cancel(sessions: Sessions, project_id: str, upload_id: str) -> None:
    with sessions.begin() as session:
        uploads.cancel(session, project_id, upload_id)


def expire(sessions: Sessions) -> list[str]:
    with sessions.begin() as session:
        return uploads.expire(session)


def make_overdue(sessions: Sessions, upload_id: str) -> None:
    with sessions.begin() as session:
        session.get_one(Upload, upload_id).expires_at = session.scalars(select(func.now())).one()


def status(sessions: Sessions, upload_id: str) -> str:
    with sessions() as session:
        return session.get_one(Upload, upload_id).status


def test_parts_are_listed_in_the_order_of_their_arrival(sessions: Sessions, project_id: str) -> None:
    upload_id = begin(sessions, project_id, size=100)
    ids = [add(sessions, project_id, upload_id).id for _ in range(5)]
    with sessions() as session:
        assert [part.id for part in uploads.parts(session, upload_id, after=None, limit=2)] == ids[:2]
        assert [part.id for part in uploads.parts(session, upload_id, after=ids[1], limit=10)] == ids[2:]


def test_parts_of_another_upload_are_not_found_among_its_own(sessions: Sessions, project_id: str) -> None:
    first, second = begin(sessions, project_id), begin(sessions, project_id)
    mine, other = add(sessions, project_id, first), add(sessions, project_id, second)
    with sessions() as session:
        assert uploads.parts_by_id(session, first, [mine.id, other.id, "part-none"]).keys() == {mine.id}


@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
def test_an_ended_upload_is_neither_added_to_nor_ended_otherwise(sessions: Sessions, project_id: str, end: str) -> None:
    upload_id = begin(sessions, project_id, lifetime=OVERDUE if end == "expired" else 3600)
    if end == "completed":
        complete(sessions, project_id, upload_id)
    elif end == "cancelled":
        cancel(sessions, project_id, upload_id)
    else:
        assert expire(sessions) == [upload_id]
    assert status(sessions, upload_id) == end
    refused: list[Action] = [add, complete] if end == "cancelled" else [add, complete, cancel]
    for action in refused:
        with pytest.raises(UploadNotPending, match=end):
            action(sessions, project_id, upload_id)
    make_overdue(sessions, upload_id)
    assert expire(sessions) == []
    assert status(sessions, upload_id) == end


def test_cancelling_twice_is_no_error(sessions: Sessions, project_id: str) -> None:
    upload_id = begin(sessions, project_id)
    cancel(sessions, project_id, upload_id)
    cancel(sessions, project_id, upload_id)
    assert status(sessions, upload_id) == "cancelled"


def test_an_overdue_upload_is_expired_before_the_dispatcher_has_seen_it(sessions: Sessions, project_id: str) -> None:
    upload_id = begin(sessions, project_id, lifetime=OVERDUE)
    with pytest.raises(UploadNotPending, match="expired"):
        complete(sessions, project_id, upload_id)
    with sessions.begin() as session:
        assert uploads.get(session, project_id, upload_id).status == "expired"


def test_another_projects_upload_does_not_exist(sessions: Sessions, project_id: str) -> None:
    upload_id = begin(sessions, project_id)
    for action in (add, complete, cancel):
        with pytest.raises(UploadNotFound, match=upload_id):
            action(sessions, "proj-other", upload_id)


def test_superfluous_parts_are_bounded_in_bytes(sessions: Sessions, project_id: str) -> None:
    upload_id = begin(sessions, project_id, size=10)
    add(sessions, project_id, upload_id, PART_BYTES)
    add(sessions, project_id, upload_id, 20)
    with pytest.raises(TooManyParts):
        add(sessions, project_id, upload_id, 1)


def test_parts_are_bounded_in_number(sessions: Sessions, project_id: str) -> None:
    upload_id = begin(sessions, project_id, size=MAX_PARTS + 1)
    with sessions.begin() as session:
        session.add_all(UploadPart(id=str(n), upload_id=upload_id, bytes=1, sha256="") for n in range(MAX_PARTS))
    with pytest.raises(TooManyParts):
        add(sessions, project_id, upload_id, 1)


def test_completion_cancellation_and_expiry_that_meet_have_one_outcome(sessions: Sessions, project_id: str) -> None:
    outcomes = set()
    for _ in range(30):
        upload_id = begin(sessions, project_id)
        start = threading.Barrier(5)
        with ThreadPoolExecutor(5) as pool:
            racers: dict[str, list[Callable[[], object]]] = {
                "completed": [partial(complete, sessions, project_id, upload_id)] * 2,
                "cancelled": [partial(cancel, sessions, project_id, upload_id)],
                "expired": [partial(make_overdue_and_expire, sessions, upload_id)] * 2,
            }
            tries = [
                (name, pool.submit(after_the_others, start, racer)) for name, many in racers.items() for racer in many
            ]
            won = [name for name, attempt in tries if attempt.result()]
        # An expiry passes over a row that somebody has locked; the next tick's has it.
        won += ["expired"] if expire(sessions) else []
        assert won == [status(sessions, upload_id)]
        outcomes.add(won[0])
    assert len(outcomes) > 1


def after_the_others(start: threading.Barrier, action: Callable[[], object]) -> bool:
    start.wait()
    try:
        return action() != []
    except UploadNotPending:
        return False


def make_overdue_and_expire(sessions: Sessions, upload_id: str) -> list[str]:
    make_overdue(sessions, upload_id)
    return expire(sessions)


def test_a_part_that_meets_the_end_is_either_in_or_refused(sessions: Sessions, project_id: str) -> None:
    for _ in range(20):
        upload_id = begin(sessions, project_id, size=1000)
        start = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            parts = [
                pool.submit(after_the_others, start, partial(add, sessions, project_id, upload_id)) for _ in range(3)
            ]
            pool.submit(after_the_others, start, partial(cancel, sessions, project_id, upload_id)).result()
            taken = sum(part.result() for part in parts)
        with sessions() as session:
            assert len(uploads.parts(session, upload_id, after=None, limit=10)) == taken


def test_a_sweep_takes_the_parts_of_what_ended_long_ago_and_no_other(sessions: Sessions, project_id: str) -> None:
    ended, pending = begin(sessions, project_id), begin(sessions, project_id)
    for upload_id in (ended, pending):
        add(sessions, project_id, upload_id)
    cancel(sessions, project_id, ended)
    with sessions.begin() as session:
        assert uploads.unswept(session, ended_before_seconds=60) == []
        assert uploads.unswept(session, ended_before_seconds=-1) == [ended]
        uploads.mark_swept(session, [ended])
        assert uploads.unswept(session, ended_before_seconds=-1) == []
        assert uploads.parts(session, ended, after=None, limit=10) == []
        assert len(uploads.parts(session, pending, after=None, limit=10)) == 1
