"""Orphans go, nothing else does, and no sweep comes between storing bytes and naming them."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from store.blobs import sweep_lock
from store.blobs.blobs import RENEWED_AFTER, Blobs
from store.database import Sessions
from store.datasets import image_facts
from store.datasets.image_facts import MeasuredImage
from store.errors import BlobMissing
from store.files import files
from store.files.files import NewFile
from store.ops import counters
from tests.api.polling import until
from tests.worker.conftest import NewJob, Supervised, upload
from worker.dispatcher import blob_sweep, housekeeping
from worker.resources import Resources

pytestmark = pytest.mark.integration


@pytest.fixture
def parts(resources: Resources) -> Resources:
    """Whose blobs are renewed under the lock, as in a worker process."""
    renewing = partial(sweep_lock.renewing, resources.sessions)
    return replace(resources, blobs=Blobs(resources.settings.effective_blob_url, renewing))


def path_of(resources: Resources, sha256: str) -> Path:
    return resources.settings.home / "blobs" / "sha256" / sha256[:2] / sha256


def age(resources: Resources, *digests: str, days: float = 2) -> None:
    """As if these blobs, or all, had been stored so long ago."""
    then = time.time() - days * 86400
    folder = resources.settings.home / "blobs" / "sha256"
    for path in [path_of(resources, one) for one in digests] or [one for one in folder.glob("*/*") if one.is_file()]:
        os.utime(path, (then, then))


def orphan(resources: Resources, content: bytes = b"orphan") -> str:
    sha256 = resources.blobs.put_bytes(content).sha256
    age(resources, sha256)
    return sha256


def test_on_a_database_that_a_newer_version_has_migrated_no_blob_is_removed(parts: Resources) -> None:
    """It may name the blob in a column that this version does not know."""
    one = orphan(parts)
    with parts.sessions.begin() as session:
        known = session.scalar(text("UPDATE alembic_version SET version_num = '9000' RETURNING old.version_num"))
    try:
        assert blob_sweep.sweep(parts) == blob_sweep.Swept(0, 0)
        assert path_of(parts, one).exists()
    finally:
        with parts.sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :known"), {"known": known})
    assert blob_sweep.sweep(parts).blobs == 1


def test_a_finished_jobs_files_and_data_survive_and_what_was_left_over_goes(
    parts: Resources, project_id: str, new_job: NewJob, supervised: Supervised
) -> None:
    job_id = new_job(steps=2, every=1)
    supervised.run(job_id).result(timeout=250)
    left = orphan(parts)
    age(parts)
    before = {path.name for path in (parts.settings.home / "blobs" / "sha256").glob("*/*")}
    assert blob_sweep.sweep(parts) == blob_sweep.Swept(blobs=1, bytes=6)
    assert {path.name for path in (parts.settings.home / "blobs" / "sha256").glob("*/*")} == before - {left}
    with parts.sessions() as session:
        for file in files.newest_first(session, project_id, after=None, limit=100, purpose=None):
            assert len(parts.blobs.read(file.sha256)) == file.bytes
            if file.pairs_sha256 is not None:
                pairs = [json.loads(line) for line in parts.blobs.read(file.pairs_sha256).splitlines()]
                assert all(parts.blobs.exists(pair[side]) for pair in pairs for side in ("chosen", "rejected"))


def test_of_a_file_that_was_deleted_long_ago_nothing_stays(parts: Resources, project_id: str, new_job: NewJob) -> None:
    job_id = new_job()
    with parts.sessions.begin() as session:
        session.execute(text("UPDATE files SET deleted_at = now() - interval '1 year'"))
    age(parts)
    assert blob_sweep.sweep(parts).blobs == 0  # the job is queued
    with parts.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET status = 'cancelled' WHERE id = :id"), {"id": job_id})
    assert blob_sweep.sweep(parts).blobs == 30  # the archive, the list, and 28 images
    assert list((parts.settings.home / "blobs" / "sha256").glob("*/*")) == []


def test_a_young_blob_stays_for_whoever_is_about_to_name_it(parts: Resources) -> None:
    sha256 = parts.blobs.put_bytes(b"young").sha256
    age(parts, sha256, days=0.9)
    assert blob_sweep.sweep(parts).blobs == 0
    assert parts.blobs.exists(sha256)


def test_bytes_that_are_stored_again_make_an_old_blob_young(parts: Resources, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"again")
    blob = parts.blobs.put_bytes(b"again")
    for store in (
        lambda: parts.blobs.put_bytes(b"again"),
        lambda: parts.blobs.put_file(source),
        lambda: parts.blobs.take_file(source, blob),
    ):
        age(parts, blob.sha256)
        store()
        assert time.time() - path_of(parts, blob.sha256).stat().st_mtime < RENEWED_AFTER
        assert blob_sweep.sweep(parts).blobs == 0


def name_it(parts: Resources, project_id: str, content: bytes) -> None:
    """What every writer does: store, then commit the row."""
    blob = parts.blobs.put_bytes(content)
    with parts.sessions.begin() as session:
        files.create(session, NewFile(project_id, "a", "fine-tune", blob.bytes, blob.sha256), status="processed")


def test_a_writer_that_comes_after_the_mark_keeps_its_blob(
    parts: Resources, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = orphan(parts)
    marked = blob_sweep.marked

    def and_then_it_is_named(resources: Resources) -> list[str]:
        found = marked(resources)
        assert found == [sha256]
        name_it(parts, project_id, b"orphan")
        age(parts, sha256)  # the row alone has to keep it
        return found

    monkeypatch.setattr(blob_sweep, "marked", and_then_it_is_named)
    assert blob_sweep.sweep(parts).blobs == 0
    assert parts.blobs.read(sha256) == b"orphan"


def test_a_writer_that_comes_during_a_removal_waits_and_stores_again(parts: Resources, project_id: str) -> None:
    """The one moment that no age and no row can tell of: it saw the blob, and the sweep has decided."""
    sha256 = orphan(parts)
    with parts.sessions.begin() as session:
        sweep_lock.removing(session)
        writer = threading.Thread(target=name_it, args=(parts, project_id, b"orphan"))
        writer.start()
        until(lambda: waits_for_the_lock(parts.sessions), seconds=20)
        assert parts.blobs.remove_old(sha256, parts.settings.blob_grace_seconds) == 6
    writer.join(timeout=20)
    assert parts.blobs.read(sha256) == b"orphan"
    assert blob_sweep.sweep(parts).blobs == 0


def test_a_sweep_waits_for_a_writer_that_is_renewing_and_spares_its_blob(parts: Resources) -> None:
    sha256 = orphan(parts)
    with ThreadPoolExecutor(1) as pool:
        with sweep_lock.renewing(parts.sessions):
            swept = pool.submit(blob_sweep.sweep, parts)
            until(lambda: waits_for_the_lock(parts.sessions), seconds=20)
            os.utime(path_of(parts, sha256))
        assert swept.result(timeout=20).blobs == 0
    assert parts.blobs.exists(sha256)


def waits_for_the_lock(sessions: Sessions) -> bool:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with sessions() as session:
        return bool(session.scalar(waiting))


def test_many_writers_and_sweeps_at_once_lose_nothing(parts: Resources, project_id: str) -> None:
    """Every content is an old orphan when its writer comes, while sweeps go on without a pause."""
    contents = [f"content {index}".encode() for index in range(60)]
    done = threading.Event()

    def sweep_on() -> None:
        while not done.is_set():
            blob_sweep.sweep(parts)

    sweeper = threading.Thread(target=sweep_on)
    for content in contents:
        parts.blobs.put_bytes(content)
    age(parts)
    sweeper.start()
    for content in contents:
        name_it(parts, project_id, content)
    done.set()
    sweeper.join(timeout=60)
    with parts.sessions() as session:
        rows = files.newest_first(session, project_id, after=None, limit=100, purpose=None)
    assert sorted(parts.blobs.read(row.sha256) for row in rows) == sorted(contents)


def test_a_list_of_pairs_that_is_missing_stops_the_sweep(parts: Resources, project_id: str) -> None:
    """What it named cannot be known."""
    left = orphan(parts)
    file = upload(parts, project_id, b"archive")
    with parts.sessions.begin() as session:
        session.execute(text("UPDATE files SET pairs_sha256 = :gone"), {"gone": "0" * 64})
    with pytest.raises(BlobMissing):
        blob_sweep.sweep(parts)
    assert parts.blobs.exists(left)
    assert parts.blobs.exists(file.sha256)


def test_what_was_measured_of_an_image_goes_with_it(parts: Resources) -> None:
    left, stored = orphan(parts), "1" * 64
    with parts.sessions.begin() as session:
        image_facts.save(session, [MeasuredImage(left, 1, 1, b""), MeasuredImage(stored, 1, 1, b"")])
    blob_sweep.sweep(parts)
    with parts.sessions() as session:
        assert image_facts.find(session, [left, stored]).keys() == {stored}


def test_a_round_is_made_when_it_is_due_by_one_dispatcher(parts: Resources) -> None:
    with parts.sessions.begin() as session:
        session.execute(text("DELETE FROM heartbeats"))
    left = orphan(parts)
    with parts.sessions.begin() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({housekeeping.LOCK})"))
        assert not housekeeping.tidy(parts)
    assert parts.blobs.exists(left)
    assert housekeeping.tidy(parts)
    assert not parts.blobs.exists(left)
    assert not housekeeping.tidy(parts)
    with parts.sessions.begin() as session:
        session.execute(text("UPDATE heartbeats SET at = at - interval '1 day'"))
    assert housekeeping.tidy(parts)
    with parts.sessions() as session:
        assert counters.heartbeat_age(session, "housekeeping") is not None


def test_a_round_holds_no_transaction_open_and_is_due_again_when_it_breaks_off(
    parts: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    with parts.sessions.begin() as session:
        session.execute(text("DELETE FROM heartbeats"))
    open_ones = text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")

    def looks_and_fails(_parts: Resources) -> None:
        with parts.sessions() as session:
            assert session.scalar(open_ones) == 0
        raise OSError("no such disk")

    monkeypatch.setattr(blob_sweep, "sweep", looks_and_fails)
    with pytest.raises(OSError, match="no such disk"):
        housekeeping.tidy(parts)
    monkeypatch.undo()
    assert housekeeping.tidy(parts)


def test_a_sweep_whose_lock_is_gone_removes_nothing_more(parts: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it stood still for so long that the server ended its transaction."""
    orphans = [parts.blobs.put_bytes(content).sha256 for content in (b"one", b"two", b"three")]
    for sha256 in orphans:
        age(parts, sha256)
    remove = Blobs.remove_old
    end_others = text("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'""")

    def removes_and_loses_the_lock(blobs: Blobs, sha256: str, seconds: float) -> int | None:
        removed = remove(blobs, sha256, seconds)
        with parts.sessions() as session:
            session.execute(end_others)
        return removed

    monkeypatch.setattr(Blobs, "remove_old", removes_and_loses_the_lock)
    with pytest.raises(OperationalError):
        blob_sweep.sweep(parts)
    assert [parts.blobs.exists(sha256) for sha256 in sorted(orphans)] == [False, True, True]
