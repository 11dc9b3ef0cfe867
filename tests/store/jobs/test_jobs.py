"""Jobs, their models and checkpoints, as their owner finds them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from store.database import Sessions
from store.errors import CursorUnknown, JobNotFound, ModelNotFound
from store.jobs import job_leases, jobs
from tests.conftest import make_tenant
from tests.store.rows import claim, queued_job, read_job, running_job

pytestmark = pytest.mark.integration
FINDS: dict[str, Callable[[Session, str, str], object]] = {
    "get": jobs.get,
    "read": lambda session, project_id, job_id: jobs.read(session.connection(), project_id, job_id),
    "cancel": jobs.cancel,
    "pause": jobs.pause,
    "resume": jobs.resume,
}


@pytest.mark.parametrize("name", FINDS)
def test_a_job_that_is_unknown_or_another_projects_does_not_exist(
    sessions: Sessions, project_id: str, name: str
) -> None:
    job_id, other_id = queued_job(sessions, project_id), make_tenant(sessions, "second").id
    with sessions() as session:
        for project, requested in ((other_id, job_id), (project_id, "ftjob-none")):
            with pytest.raises(JobNotFound, match=requested):
                FINDS[name](session, project, requested)
        assert FINDS[name](session, project_id, job_id) is not None


def test_a_row_that_is_only_read_has_every_column_of_the_job(sessions: Sessions, project_id: str) -> None:
    job = read_job(sessions, queued_job(sessions, project_id))
    with sessions() as session:
        row = jobs.read(session.connection(), project_id, job.id)
    assert row._asdict() == {name: getattr(job, name) for name in row._fields}
    assert {"id", "status", "spec", "job_metadata", "queued_at"} <= set(row._fields)


def test_a_model_is_found_by_its_project_until_it_is_deleted(sessions: Sessions, project_id: str) -> None:
    other_id, owned = make_tenant(sessions, "second").id, running_job(sessions, project_id)
    with sessions.begin() as session:
        job_leases.succeed(session, owned, results=[])
    model = read_job(sessions, owned.job_id).fine_tuned_model
    assert model is not None
    with sessions.begin() as session:
        found = jobs.by_fine_tuned_model(session, project_id, model)
        assert found is not None
        assert found.id == owned.job_id
        assert jobs.by_fine_tuned_model(session, other_id, model) is None
        assert jobs.by_fine_tuned_model(session, project_id, "ft:none") is None
        with pytest.raises(ModelNotFound, match=model):
            jobs.delete_model(session, other_id, model)
        jobs.delete_model(session, project_id, model)
        with pytest.raises(ModelNotFound, match=model):
            jobs.delete_model(session, project_id, model)
    with sessions() as session:
        assert jobs.by_fine_tuned_model(session, project_id, model) is None


def test_a_checkpoint_of_a_step_is_that_of_the_latest_attempt(sessions: Sessions, project_id: str) -> None:
    first, other = running_job(sessions, project_id), running_job(sessions, project_id)
    measured = {"valid_loss": 1.0}
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, other, step=9, metrics=measured, manifest={})
        for step in (3, 6):
            job_leases.add_checkpoint(session, first, step=step, metrics=measured, manifest={})
        job_leases.give_back(session, first, "Stopped.")
    second = claim(sessions, first.job_id)
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, second, step=6, metrics=measured, manifest={})
    with sessions() as session:
        found = {step: jobs.checkpoint_at(session, first.job_id, step) for step in (3, 6, 9)}
    assert {step: one and (one.step, one.attempt) for step, one in found.items()} == {3: (3, 1), 6: (6, 2), 9: None}


def test_checkpoints_are_listed_page_by_page(sessions: Sessions, project_id: str) -> None:
    owned, other = running_job(sessions, project_id), running_job(sessions, project_id)
    with sessions.begin() as session:
        for step in range(1, 6):
            job_leases.add_checkpoint(session, owned, step=step, metrics={"valid_loss": 1.0}, manifest={})
        job_leases.add_checkpoint(session, other, step=1, metrics={}, manifest={})
    with sessions() as session:
        every = jobs.checkpoints(session, owned.job_id, after=None, limit=9)
        assert [one.step for one in every] == [5, 4, 3, 2, 1]
        [strangers] = jobs.checkpoints(session, other.job_id, after=None, limit=9)
        page = jobs.checkpoints(session, owned.job_id, after=every[1].id, limit=2)
        assert [one.step for one in page] == [3, 2]
        for unknown in (strangers.id, "ftckpt-none"):
            with pytest.raises(CursorUnknown, match=unknown):
                jobs.checkpoints(session, owned.job_id, after=unknown, limit=2)
