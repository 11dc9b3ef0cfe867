"""Files as their owner finds them: whole lists in pages, and nothing of another project."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.database import Sessions
from store.errors import CursorUnknown, FileInUse, FileNotFound
from store.files import files
from store.files.files import NewFile
from store.tables.file import File
from tests.conftest import make_tenant
from tests.store.rows import add_file, add_job

pytestmark = pytest.mark.integration
Find = Callable[[Session, str, str], File]
FINDS: tuple[Find, ...] = (files.get, files.get_for_job, files.delete)


@pytest.mark.parametrize("find", FINDS)
def test_a_file_is_found_by_its_owner_until_it_is_deleted(sessions: Sessions, project_id: str, find: Find) -> None:
    other_id, file = make_tenant(sessions, "second").id, add_file(sessions, project_id)
    with sessions.begin() as session:
        for project, file_id in ((other_id, file.id), (project_id, "file-none")):
            with pytest.raises(FileNotFound, match=file_id):
                find(session, project, file_id)
        assert find(session, project_id, file.id).id == file.id
        if find is not files.delete:
            files.delete(session, project_id, file.id)
        with pytest.raises(FileNotFound, match=file.id):
            find(session, project_id, file.id)


def test_a_file_of_a_job_that_is_being_created_is_not_deleted_meanwhile(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id)
    with sessions.begin() as creating, sessions() as other:
        files.get_for_job(creating, project_id, file.id)
        other.execute(text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            files.delete(other, project_id, file.id)


def test_a_file_that_a_live_job_needs_is_not_deleted(sessions: Sessions, project_id: str) -> None:
    training, validation = add_file(sessions, project_id), add_file(sessions, project_id)
    job_id = add_job(sessions, training, validation)
    with sessions.begin() as session:
        for file in (training, validation):
            with pytest.raises(FileInUse, match=job_id):
                files.delete(session, project_id, file.id)


def test_files_are_listed_page_by_page_in_both_orders(sessions: Sessions, project_id: str) -> None:
    made = [add_file(sessions, project_id).id for _ in range(5)]
    strangers = add_file(sessions, make_tenant(sessions, "second").id).id

    def page(after: str | None, limit: int, *, oldest_first: bool, purpose: str | None = None) -> list[str]:
        with sessions() as session:
            found = files.newest_first(
                session, project_id, after=after, limit=limit, purpose=purpose, oldest_first=oldest_first
            )
            return [file.id for file in found]

    for order, oldest_first in ((made[::-1], False), (made, True)):
        assert page(None, 2, oldest_first=oldest_first) == order[:2]
        assert page(order[1], 2, oldest_first=oldest_first) == order[2:4]
        assert page(order[3], 2, oldest_first=oldest_first) == order[4:]
        for unknown in (strangers, "file-none"):
            with pytest.raises(CursorUnknown, match=unknown):
                page(unknown, 2, oldest_first=oldest_first)
    with sessions.begin() as session:
        result = files.create(session, NewFile(project_id, "a", "fine-tune-results", 1, "1" * 64), status="processed")
        files.delete(session, project_id, made[1])
    assert page(None, 9, oldest_first=True, purpose="fine-tune-results") == [result.id]
    # A file that is gone is still a place to go on from.
    assert page(made[1], 9, oldest_first=True, purpose="fine-tune") == made[2:]
