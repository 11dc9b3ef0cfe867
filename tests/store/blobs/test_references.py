"""Every column that may name a blob is known, and rows name blobs for as long as somebody can want them."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from store.blobs import references
from store.database import Sessions
from store.datasets import datasets
from store.datasets.datasets import NewPair
from store.files import files
from store.files.files import NewFile
from store.generations import generation_leases
from store.jobs import job_leases, jobs, retention
from store.tables.base import Table
from store.tables.file import File
from store.tables.generation import Generation
from store.tables.job import Checkpoint
from tests.conftest import make_tenant
from tests.store.rows import SPEC, add_generation, add_job, claim, queued_job, running_job

GRACE = 7200.0


@pytest.mark.unit
def test_every_column_that_ends_in_sha256_is_listed_as_naming_a_blob_or_something_else() -> None:
    listed = {(of.class_.__tablename__, of.key) for of in (*references.NAMING, *references.NOT_NAMING)}
    there = {
        (table.name, column.name)
        for table in Table.metadata.tables.values()
        for column in table.columns
        if column.name.endswith("sha256")
    }
    assert listed == there
    assert not set(references.NAMING) & set(references.NOT_NAMING)
    assert {of.class_.__tablename__ for of in references.NAMING} == references.NEEDED.keys()


@pytest.mark.unit
def test_every_json_column_is_known_to_hold_digests_of_blobs_or_none() -> None:
    """A new one has to be thought of: a digest inside JSON has no name that a test could find."""
    without = {
        ("projects", "limits"),
        ("audit_entries", "details"),
        ("files", "report"),
        ("files", "policy"),
        ("files", "progress"),
        ("jobs", "spec"),
        ("jobs", "job_metadata"),
        ("jobs", "progress"),
        ("jobs", "error"),
        ("generations", "spec"),
        ("generations", "error"),
        ("job_events", "data"),
        ("checkpoints", "metrics"),
        ("uploads", "policy"),
        ("datasets", "dataset_metadata"),
        ("idempotency_keys", "answer"),  # what was answered; a file in it has its row
    }
    there = {
        (table.name, column.name)
        for table in Table.metadata.tables.values()
        for column in table.columns
        if column.type.__class__.__name__ == "JSONB"
    }
    assert there - without == {("checkpoints", "manifest"), ("generations", "result"), ("generations", "weights")}


@pytest.mark.integration
def test_generated_images_and_the_adapters_they_are_generated_with_are_needed(sessions: Sessions) -> None:
    generation_id = add_generation(sessions, make_tenant(sessions, "artists").id)
    with sessions.begin() as session:
        generation = session.get_one(Generation, generation_id)
        generation.weights = {"adapter.safetensors": digest("a")}
    assert named(sessions, digest("a"), digest("b")) == {digest("a")}
    with sessions.begin() as session:
        owned = generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
        assert owned is not None
        images = [{"sha256": digest("b"), "bytes": 1}, {"sha256": digest("c"), "bytes": 1}]
        generation_leases.succeed(session, owned, result={"images": images})
    assert named(sessions, *map(digest, "abcd")) == {digest("a"), digest("b"), digest("c")}


def named(sessions: Sessions, *digests: str) -> set[str]:
    """By both ways of asking."""
    with sessions() as session:
        some = references.named(session, digests, grace_seconds=GRACE)
        assert some == references.all_named(session, grace_seconds=GRACE) & set(digests)
    return some


def digest(letter: str) -> str:
    return letter * 64


def add_file(sessions: Sessions, project_id: str) -> File:
    """With the content aa..., and pairs bb... ."""
    with sessions.begin() as session:
        new = NewFile(project_id, "pairs.zip", "fine-tune", 3, digest("a"))
        file = files.create(session, new, status="processed")
        file.pairs_sha256 = digest("b")
    return file


def set_back(sessions: Sessions, table: str, column: str, seconds: float) -> None:
    statement = text(f"UPDATE {table} SET {column} = {column} - :seconds * interval '1 second'")  # noqa: S608
    with sessions.begin() as session:
        session.execute(statement, {"seconds": seconds})


@pytest.mark.integration
def test_a_file_names_its_blobs_until_the_grace_time_after_its_deletion(sessions: Sessions, project_id: str) -> None:
    file = add_file(sessions, project_id)
    both = {digest("a"), digest("b")}
    assert named(sessions, *both, digest("c")) == both
    with sessions.begin() as session:
        files.delete(session, project_id, file.id)
    assert named(sessions, *both) == both
    set_back(sessions, "files", "deleted_at", GRACE + 1)
    assert named(sessions, *both) == set()


@pytest.mark.integration
def test_a_job_that_has_not_ended_keeps_the_blobs_of_its_file_whatever_became_of_that(
    sessions: Sessions, project_id: str
) -> None:
    file = add_file(sessions, project_id)
    job_id = add_job(sessions, file)
    with sessions.begin() as session:
        session.execute(text("UPDATE files SET deleted_at = now() - interval '1 year'"))
    assert named(sessions, digest("a"), digest("b")) == {digest("a"), digest("b")}
    with sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    assert named(sessions, digest("a"), digest("b")) == set()


@pytest.mark.integration
def test_a_data_set_names_its_images_and_lists_and_so_does_a_job_on_a_deleted_one(
    sessions: Sessions, project_id: str
) -> None:
    letters = {digest("c"), digest("d"), digest("e")}
    with sessions.begin() as session:
        pairs = [NewPair("a", digest("c"), digest("d"))]
        dataset = datasets.create(session, project_id, "foxes", None, pairs)
        revision = datasets.revision(session, dataset, 1)
        datasets.materialised(session, revision, digest("e"))
        [pair] = datasets.pairs(session, revision, after=None, limit=2)
        datasets.remove(session, datasets.lock(session, project_id, dataset.id), pair.id)
        new = jobs.NewJob(project_id, SPEC, revision, None)
        job_id = jobs.create(session, new).id
    assert named(sessions, *letters) == letters  # the pair that was removed stands in revision 1
    with sessions.begin() as session:
        datasets.delete(session, project_id, dataset.id)
    set_back(sessions, "datasets", "deleted_at", GRACE + 1)
    assert named(sessions, *letters) == letters
    with sessions() as session:
        assert references.documents(session, grace_seconds=GRACE) == {digest("e")}
    with sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    assert named(sessions, *letters) == set()


def checkpoint(sessions: Sessions, owned: job_leases.JobLease, step: int, letter: str) -> None:
    manifest = {"state/adapter.safetensors": {"sha256": digest(letter), "bytes": 3}}
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, owned, step=step, metrics={"valid_loss": 0.1}, manifest=manifest)


@pytest.mark.integration
def test_of_a_job_that_ended_long_ago_the_last_checkpoint_keeps_its_files(sessions: Sessions, project_id: str) -> None:
    ended, fresh, running = (running_job(sessions, project_id) for _ in range(3))
    for owned, letters in ((ended, "12"), (fresh, "34"), (running, "56")):
        for step, letter in enumerate(letters):
            checkpoint(sessions, owned, step, letter)
    queued_job(sessions, project_id)
    with sessions.begin() as session:
        job_leases.succeed(session, ended, results=[])
    set_back(sessions, "jobs", "finished_at", 15 * 86400)
    with sessions.begin() as session:
        job_leases.succeed(session, fresh, results=[])
    everything = [digest(letter) for letter in "123456"]
    assert named(sessions, *everything) == set(everything)
    for dropped in (1, 0):  # the second time there is nothing left to do
        with sessions.begin() as session:
            assert retention.drop_checkpoints(session, days=14, failed_days=14) == dropped
    assert named(sessions, *everything) == set(everything) - {digest("1")}
    with sessions() as session:
        stored = session.query(Checkpoint).filter_by(job_id=ended.job_id).order_by(Checkpoint.step)
        assert [(row.step, row.metrics) for row in stored] == [(0, {"valid_loss": 0.1}), (1, {"valid_loss": 0.1})]


@pytest.mark.integration
def test_a_job_that_runs_again_resumes_from_a_checkpoint_that_was_stored(sessions: Sessions, project_id: str) -> None:
    """However old: what can be claimed again has not ended."""
    owned = running_job(sessions, project_id)
    checkpoint(sessions, owned, 1, "1")
    with sessions.begin() as session:
        job_leases.give_back(session, owned, "Stopped.")
        session.execute(text("UPDATE jobs SET created_at = now() - interval '1 year'"))
        assert retention.drop_checkpoints(session, days=0, failed_days=0) == 0
    with sessions() as session:
        latest = job_leases.latest_checkpoint(session, claim(sessions, owned.job_id).job_id)
    assert latest is not None
    assert latest.manifest
