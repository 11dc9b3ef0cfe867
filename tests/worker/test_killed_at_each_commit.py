"""A worker that is killed before or after each of its commits: what it wrote stands once, and the job goes on from
there to the end that one has whom nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from store.files.files import by_ids
from store.job_status import JobStatus
from store.settings import REPOSITORY
from tests.api.polling import until
from tests.faults.checker import violations
from tests.faults.verdict import weights_of
from tests.store.rows import read_events, read_job
from tests.worker.celery_worker import SHARED
from tests.worker.conftest import NewJob
from worker.dispatcher.dispatcher import tick
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration
# In an order in which an attempt comes to each; the last one ends the job.
POINTS = (
    ("before", "claim_next"),
    ("after", "claim_next"),
    ("before", "record"),
    ("after", "record"),
    ("before", "add_sample"),
    ("after", "add_sample"),
    ("before", "add_checkpoint"),
    ("after", "add_checkpoint"),
    ("before", "succeed"),
    ("after", "succeed"),
)


@pytest.fixture
def patient(resources: Resources) -> Resources:
    """Whom no number of crashes makes give up."""
    return replace(resources, settings=resources.settings.model_copy(update={"crash_cap": 99, "lease_seconds": 3.0}))


def killed(resources: Resources, log: Path, where: str, call: str) -> bool:
    variables = {f"PAIRTUNE_{name.upper()}": str(getattr(resources.settings, name)) for name in (*SHARED, "crash_cap")}
    command = [sys.executable, "-m", "tests.worker.dying", where, call]
    with log.open("ab") as output:
        ended = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | variables, stdout=output, stderr=output, check=False
        )
    return ended.returncode == -signal.SIGKILL


def test_a_job_outlives_its_worker_at_every_commit(
    patient: Resources, project_id: str, new_job: NewJob, tmp_path: Path
) -> None:
    requested = {"steps": 8, "every": 2, "sampling": {"steps": 1, "prompts": ["a red square"], "every_steps": 2}}
    job_id = new_job(**requested)

    def is_free() -> bool:
        tick(patient)
        return read_job(patient.sessions, job_id).status in (JobStatus.QUEUED, JobStatus.SUCCEEDED)

    for where, call in POINTS:
        until(is_free, seconds=30)
        assert killed(patient, tmp_path / "log", where, call), (where, call, (tmp_path / "log").read_text()[-2000:])
    assert read_job(patient.sessions, job_id).status == "succeeded"
    undisturbed = new_job(**requested)
    supervise(patient, undisturbed, stopping=lambda: False)
    with patient.sessions() as session:
        jobs = [read_job(patient.sessions, one) for one in (job_id, undisturbed)]
        assert violations(session, all_ended=True, of=[job_id, undisturbed]) == []
        assert weights_of(session, patient.blobs, jobs[0]) == weights_of(session, patient.blobs, jobs[1])
        names = [sorted(file.filename for file in by_ids(session, job.result_files)) for job in jobs]
    assert names[0] == names[1]
    samples = [(e.attempt, (e.data or {})["step"]) for e in read_events(patient.sessions, job_id) if is_sample(e.data)]
    assert len(samples) == len(set(samples))


def is_sample(data: dict[str, object] | None) -> bool:
    return (data or {}).get("event") == "sample"
