"""A round of housekeeping erases the rows of what was deleted long enough ago."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.files import files
from store.tables.file import File
from tests.store.rows import add_file
from worker.dispatcher.housekeeping import tidy
from worker.resources import Resources


@pytest.mark.integration
@pytest.mark.parametrize(("days", "remain"), [(0.0, 1), (1.0, 2)])
def test_a_round_erases_what_was_deleted_so_many_days_ago(
    resources: Resources, project_id: str, days: float, remain: int
) -> None:
    deleted, _ = (add_file(resources.sessions, project_id) for _ in range(2))
    with resources.sessions.begin() as session:
        files.delete(session, project_id, deleted.id)
    settings = resources.settings.model_copy(update={"deleted_days": days, "sweep_seconds": 0.0})
    assert tidy(replace(resources, settings=settings))
    with resources.sessions() as session:
        assert session.query(File).count() == remain
