"""What finished jobs tell of the cost of another: figures of one attempt, from its events, checkpoints and results."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from store.database import Sessions
from store.files.files import NewFile
from store.jobs import job_leases, run_history
from store.jobs.events import NewEvent
from store.tables.job import Job, JobEvent
from tests.store.rows import SPEC, running_job

pytestmark = pytest.mark.integration
BUCKETS = {"64 x 32": 3, "16 x 16": 1}
EVENTS: list[dict[str, Any]] = [
    {"event": "started", "device": "cpu", "hyperparameters": {"step_size": 4}},
    {"event": "phase", "phase": "caching", "previous": "loading", "seconds": 1.5},
    {"event": "data_prepared", "training_pairs": 9, "validation_pairs": 1, "buckets": BUCKETS},
    {"event": "phase", "phase": "training", "previous": "caching", "seconds": 2.5},
    {"event": "progress", "step": 1, "peak_memory_bytes": 90},
    {"event": "phase", "phase": "validating", "previous": "training", "seconds": 20.0},
    {"event": "phase", "phase": "training", "previous": "validating", "seconds": 3.0},
    {"event": "progress", "step": 10, "peak_memory_bytes": 70},
    {"event": "phase", "phase": "exporting", "previous": "training", "seconds": 22.0},
]


def finished(sessions: Sessions, project_id: str, reported: list[dict[str, Any]]) -> str:
    """A job of 50 seconds with two checkpoints, of 12 and 20 bytes, and two results, of 5 and 6."""
    owned = running_job(sessions, project_id)
    with sessions.begin() as session:
        job_leases.record(session, owned, [NewEvent("m", data=data) for data in reported])
        for step, sizes in ((5, (10, 2)), (10, (20,))):
            manifest = {f"file {n}": {"bytes": size} for n, size in enumerate(sizes)}
            job_leases.add_checkpoint(session, owned, step=step, metrics={"valid_loss": 1.0}, manifest=manifest)
        results = [NewFile(project_id, "a", "fine-tune-results", size, f"{size}" * 64) for size in (5, 6)]
        job_leases.succeed(session, owned, results=results)
    with sessions.begin() as session:
        claimed = session.query(JobEvent.created_at).filter_by(job_id=owned.job_id, message="Started.").scalar()
        ended = update(Job).where(Job.id == owned.job_id)
        session.execute(ended.values(finished_at=claimed + timedelta(seconds=50)))
    return owned.job_id


def test_a_finished_job_is_measured_by_what_it_reported(sessions: Sessions, project_id: str) -> None:
    finished(sessions, project_id, EVENTS)
    with sessions() as session:
        [run] = run_history.of_base(session, "tiny")
        assert run_history.of_base(session, "another") == []
    assert run == run_history.MeasuredRun(
        spec=SPEC,
        device="cpu",
        seconds=50.0,
        training_seconds=42.0,
        caching_seconds=2.5,
        steps=10,
        effective_batch_size=4,
        pairs=10,
        pixels=(3 * 64 * 32 + 16 * 16) / 4,
        peak_memory_bytes=90,
        result_bytes=11,
        checkpoint_bytes=16.0,
    )
    assert run.method == "mapo"


@pytest.mark.parametrize("missing", ["started", "data_prepared", "progress"])
def test_a_job_that_did_not_report_all_of_it_is_no_measure(sessions: Sessions, project_id: str, missing: str) -> None:
    finished(sessions, project_id, [reported for reported in EVENTS if reported["event"] != missing])
    with sessions() as session:
        assert run_history.of_base(session, "tiny") == []
