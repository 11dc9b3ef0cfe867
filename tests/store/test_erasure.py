"""Rows of what was deleted go once nothing needs them, and a project goes with all that it has."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from store import erasure
from store.database import Sessions
from store.datasets import datasets
from store.datasets.datasets import NewPair
from store.errors import JobNotFound
from store.files import files, uploads
from store.files.uploads import NewPart, NewUpload
from store.generations import generation_leases, generations
from store.jobs import job_leases, jobs
from store.jobs.jobs import NewJob
from store.tables.base import Table
from store.tables.dataset import Dataset, DatasetPair, DatasetRevision
from store.tables.file import File
from store.tables.generation import Generation
from store.tables.job import Checkpoint, Job, JobEvent
from store.tables.project import ApiKey
from store.tables.upload import Upload, UploadPart
from store.tenants import idempotency
from store.webhooks import endpoints
from tests.conftest import make_tenant
from tests.store.rows import SPEC, add_file, add_generation, add_job, claim

pytestmark = pytest.mark.integration


def erase(sessions: Sessions, days: float = 1.0) -> int:
    """As housekeeping does it, step by step until nothing more goes."""
    erased = 0
    for step in erasure.STEPS:
        while True:
            with sessions.begin() as session:
                done = step(session, days)
            erased += done
            if not done:
                break
    return erased


def count(sessions: Sessions, table: Any) -> int:
    with sessions() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def age(sessions: Sessions, table: str, column: str = "deleted_at") -> None:
    with sessions.begin() as session:
        session.execute(text(f"UPDATE {table} SET {column} = {column} - interval '2 days'"))  # noqa: S608


def dataset_of(sessions: Sessions, project_id: str, pairs: int = 3) -> str:
    with sessions.begin() as session:
        new = [NewPair("a secret prompt", "1" * 64, None) for _ in range(pairs)]
        return datasets.create(session, project_id, "d", None, new).id


def job_on(sessions: Sessions, project_id: str, dataset_id: str) -> str:
    with sessions.begin() as session:
        revision = datasets.revision(session, datasets.get(session, project_id, dataset_id), None)
        return jobs.create(session, NewJob(project_id, SPEC, revision, None)).id


def test_a_deleted_file_goes_after_its_days_and_not_before(sessions: Sessions, project_id: str) -> None:
    file, other = add_file(sessions, project_id), add_file(sessions, project_id)
    with sessions.begin() as session:
        files.delete(session, project_id, file.id)
    assert erase(sessions) == 0
    age(sessions, "files")
    assert erase(sessions) == 1
    with sessions() as session:
        assert list(session.scalars(select(File.id))) == [other.id]


def test_of_a_file_that_a_job_names_the_row_stays_and_what_it_says_goes(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id)
    with sessions.begin() as session:
        session.execute(update(File).values(report={"rows": 1, "prompt": "secret"}, status_details="secret"))
    job_id = add_job(sessions, file)
    lease = claim(sessions, job_id)
    with sessions.begin() as session:
        session.execute(update(File).values(deleted_at=func.now()))
    age(sessions, "files")
    assert erase(sessions) == 0  # the job that runs may need it
    with sessions.begin() as session:
        job_leases.fail(session, lease, code="c", message="m")
    assert erase(sessions) == 1
    with sessions() as session:
        row = session.get_one(File, file.id)
        assert (row.report, row.status_details, row.filename) == (None, None, "")
    assert erase(sessions) == 0


def test_the_pairs_of_a_deleted_dataset_go_in_parts_once_no_job_reads_them(
    sessions: Sessions, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "AT_ONCE", 2)
    kept, dropped = dataset_of(sessions, project_id), dataset_of(sessions, project_id, pairs=5)
    job_id = job_on(sessions, project_id, dropped)
    with sessions.begin() as session:
        datasets.delete(session, project_id, dropped)
    age(sessions, "datasets")
    assert erase(sessions) == 0
    with sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    assert erase(sessions) == 5
    with sessions() as session:
        assert set(session.scalars(select(DatasetPair.dataset_id))) == {kept}
        assert session.get(DatasetRevision, (dropped, 1)) is not None  # which the job that ended names
    with sessions.begin() as session:
        jobs.delete(session, project_id, job_id)
    age(sessions, "jobs")
    erase(sessions)
    with sessions() as session:
        assert list(session.scalars(select(Dataset.id))) == [kept]
        assert session.get(Job, job_id) is None


def test_a_deleted_job_is_hidden_at_once_and_goes_with_its_events_and_checkpoints(
    sessions: Sessions, project_id: str
) -> None:
    job_id = add_job(sessions, add_file(sessions, project_id))
    lease = claim(sessions, job_id)
    with sessions.begin() as session:
        manifest = {"adapter": {"sha256": "2" * 64, "bytes": 7}}
        job_leases.add_checkpoint(session, lease, step=1, metrics={"valid_loss": 1.0}, manifest=manifest)
        result = files.NewFile(project_id, "pytorch_lora_weights.safetensors", "fine-tune-results", 3, "3" * 64)
        job_leases.succeed(session, lease, results=[result])
    with sessions.begin() as session:
        jobs.delete(session, project_id, job_id)
    with sessions() as session:
        with pytest.raises(JobNotFound):
            jobs.get(session, project_id, job_id)
        assert jobs.by_fine_tuned_model(session, project_id, f"ft:tiny:test:{job_id.removeprefix('ftjob-')}") is None
        assert session.scalars(select(File.deleted_at).where(File.id == result.id)).one() is not None
        assert [row.manifest for row in session.scalars(select(Checkpoint))] == [{}]
    assert erase(sessions) == 0
    age(sessions, "jobs")
    erase(sessions)
    assert [count(sessions, table) for table in (Job, JobEvent, Checkpoint)] == [0, 0, 0]


def test_deleted_images_go_once_their_worker_has_ended(sessions: Sessions, project_id: str) -> None:
    generation_id = add_generation(sessions, project_id)
    with sessions.begin() as session:
        lease = generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
        assert lease is not None
    with sessions.begin() as session:
        generations.delete(session, project_id, generation_id)
    age(sessions, "generations")
    assert erase(sessions) == 0
    with sessions.begin() as session:
        generation_leases.cancel(session, lease)
    assert erase(sessions) == 1
    assert count(sessions, Generation) == 0


def test_uploads_go_that_made_no_file_or_whose_file_was_deleted(sessions: Sessions, project_id: str) -> None:
    with sessions.begin() as session:
        ids = [
            uploads.create(session, NewUpload(project_id, "a.zip", "fine-tune", 3, None), lifetime_seconds=60).id
            for _ in range(2)
        ]
        uploads.add_part(session, project_id, ids[0], NewPart("part-1", 3, "4" * 64))
        uploads.cancel(session, project_id, ids[0])
        uploads.mark_swept(session, [ids[0]])
    age(sessions, "uploads", "swept_at")
    erase(sessions)
    with sessions() as session:
        assert list(session.scalars(select(Upload.id))) == [ids[1]]
        assert session.scalar(select(func.count()).select_from(UploadPart)) == 0


def test_an_erased_project_leaves_no_row_behind_and_no_other_project_loses_one(sessions: Sessions) -> None:
    mine, theirs = (_full_project(sessions, name) for name in ("mine", "theirs"))
    before = {table.name: count(sessions, table) for table in Table.metadata.sorted_tables}
    unshared = {name for name, rows in before.items() if rows and name not in SHARED}
    with sessions.begin() as session:
        erased = erasure.erase_project(session, mine)
    assert erased.keys() == unshared
    after = {table.name: count(sessions, table) for table in Table.metadata.sorted_tables}
    assert {name: rows for name, rows in after.items() if name in unshared} == {
        name: before[name] // 2 for name in unshared
    }
    with sessions() as session:
        assert set(session.scalars(select(ApiKey.project_id))) == {theirs}


SHARED = {"counters", "heartbeats", "image_facts"}


def _full_project(sessions: Sessions, name: str) -> str:
    """One that has a row in every table of a project's."""
    project_id = make_tenant(sessions, name).id
    dataset_id = dataset_of(sessions, project_id)
    job_on(sessions, project_id, dataset_id)
    lease = claim(sessions, add_job(sessions, add_file(sessions, project_id)))
    add_generation(sessions, project_id)
    with sessions.begin() as session:
        key_id = session.scalars(select(ApiKey.id).where(ApiKey.project_id == project_id)).one()
        idempotency.save(session, key_id, "k", request="r", answer={})
        endpoints.create(session, project_id, url="https://example.org/hook", events=[], key_check="k")
        job_leases.add_checkpoint(session, lease, step=1, metrics={"valid_loss": 1.0}, manifest={})
        job_leases.fail(session, lease, code="c", message="m")
        upload = uploads.create(session, NewUpload(project_id, "a", "fine-tune", 3, None), lifetime_seconds=60)
        uploads.add_part(session, project_id, upload.id, NewPart(f"part-{name}", 3, "4" * 64))
    return project_id
