"""What operators watch, of rows of every kind."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from store.database import Sessions
from store.files import file_leases, uploads
from store.files.uploads import NewUpload
from store.jobs import job_leases
from store.ops import counters, service_metrics
from store.ops.counters import Loop
from store.ops.service_metrics import FileBeingRead, RunningJob
from store.tables.file import File
from store.tables.job import Job
from tests.store.rows import add_file, add_generation, queued_job, running_job

pytestmark = pytest.mark.integration
HOUR = timedelta(hours=1)
LOOPS: tuple[Loop, ...] = ("dispatcher", "housekeeping")


def test_an_installation_without_work_has_no_ages_and_every_live_state(sessions: Sessions) -> None:
    with sessions() as session:
        found = service_metrics.read(session)
    assert found.jobs == {"validating_files": 0, "queued": 0, "running": 0, "paused": 0}
    assert found.queue_age == {"train": 0, "intake": 0, "draw": 0}
    assert (found.waiting_files, found.running, found.reading, found.pending_uploads) == (0, [], [], 0)
    assert (found.due_deliveries, found.oldest_due_delivery) == (0, 0)


def test_work_is_counted_where_it_waits_and_where_it_runs(sessions: Sessions, project_id: str) -> None:
    waiting, running, silent = queued_job(sessions, project_id), *(running_job(sessions, project_id) for _ in range(2))
    unread, read = (add_file(sessions, project_id, status="uploaded").id for _ in range(2))
    add_generation(sessions, project_id)
    reported = {"pairs_per_second": 2.5, "peak_memory_bytes": 70}
    with sessions.begin() as session:
        job_leases.record(session, running, [], progress=reported)
        session.execute(update(Job).where(Job.id == silent.job_id).values(worker="w2"))
        session.execute(update(Job).where(Job.id == waiting).values(queued_at=func.clock_timestamp() - HOUR))
        session.execute(update(File).where(File.id == unread).values(created_at=func.clock_timestamp() - 2 * HOUR))
        assert file_leases.claim(session, read, lease_seconds=60) is not None
        reading = {"worker": "i1", "peak_memory_bytes": 80}
        session.execute(update(File).where(File.id == read).values(progress=reading))
        for seconds in (60, -60):
            uploads.create(session, NewUpload(project_id, "a", "fine-tune", 1), lifetime_seconds=seconds)
    with sessions() as session:
        found = service_metrics.read(session)
    assert found.jobs == {"validating_files": 0, "queued": 1, "running": 2, "paused": 0}
    assert found.running == [RunningJob("w1", 2.5, 70), RunningJob("w2", None, None)]
    assert found.reading == [FileBeingRead("i1", 80)]
    assert found.queue_age["train"] == pytest.approx(3600, abs=60)
    assert (found.waiting_files, found.pending_uploads) == (1, 1)
    assert found.queue_age["intake"] == pytest.approx(7200, abs=60)
    assert 0 < found.queue_age["draw"] < 60


def test_a_loop_lags_since_it_was_last_round(sessions: Sessions) -> None:
    with sessions() as session:  # rolled back
        for loop in LOOPS:
            counters.record_heartbeat(session, loop)
        lags = service_metrics.read(session).lags
        assert lags.keys() == set(LOOPS)
        assert all(0 <= lag < 60 for lag in lags.values())
        counters.delete_heartbeat(session, "dispatcher")
        assert service_metrics.read(session).lags.keys() == {"housekeeping"}
