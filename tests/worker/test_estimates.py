"""Estimates from a job that really ran: what the API tells beside what the same job costs again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from store.files import files
from store.jobs import jobs, run_history
from store.tables.project import Project
from store.tenants import api_keys
from tests.api.conftest import open_client
from tests.store.rows import read_job
from tests.worker.conftest import NewJob
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration


def test_a_dry_run_of_a_finished_job_reports_what_it_has_cost(
    resources: Resources, project_id: str, new_job: NewJob, tiny_base: Path, tmp_path: Path
) -> None:
    sessions = resources.sessions
    job_id = new_job(steps=6, every=3)
    supervise(resources, job_id, stopping=lambda: False)
    job = read_job(sessions, job_id)
    with sessions() as session:
        [run] = run_history.of_base(session, "tiny")
        assert run_history.of_base(session, "another") == []
        results = files.by_ids(session, job.result_files)
        written = jobs.checkpoints(session, job_id, after=None, limit=10)
    assert (run.method, run.device, run.steps, run.effective_batch_size, run.pixels) == ("mapo", "cpu", 6, 2, 1024)
    assert 0 < run.training_seconds + run.caching_seconds < run.seconds
    assert run.peak_memory_bytes > 100 * 2**20
    assert run.result_bytes == sum(file.bytes for file in results)

    bases = tmp_path / "bases.toml"
    bases.write_text(f'[[base]]\nname = "tiny"\nfamily = "sdxl"\nsource = "{tiny_base}"\n')
    with sessions.begin() as session:
        key = api_keys.create(session, session.get_one(Project, project_id), "for estimates")
    requested: dict[str, Any] = {name: job.spec[name] for name in ("method", "adapter", "validation", "checkpoints")}
    requested |= {"model": "tiny", "training_file": job.training_file_id, "dry_run": True}
    with open_client(resources.settings.model_copy(update={"bases_file": bases})) as client:
        answer = client.post("/v1/fine_tuning/jobs", json=requested, headers={"authorization": f"Bearer {key}"})
    reported = answer.json()
    assert answer.status_code == 200, reported
    assert reported["basis"] == "measured on 1 job of mapo on tiny"
    assert (reported["steps"], reported["pairs"], reported["device"]) == (6, 14, "cpu")
    assert abs(reported["seconds"] - run.seconds) <= 1
    assert reported["peak_memory_bytes"] == run.peak_memory_bytes
    stored = sum(file["bytes"] for one in written for file in one.manifest.values())
    assert abs(reported["disk_bytes"] - run.result_bytes - stored) <= 2


def test_a_job_that_was_taken_up_twice_is_no_measure(resources: Resources, new_job: NewJob) -> None:
    job_id = new_job(steps=4, every=2)
    supervise(resources, job_id, stopping=lambda: True)  # given back at once
    supervise(resources, job_id, stopping=lambda: False)
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt) == ("succeeded", 2)
    with resources.sessions() as session:
        assert run_history.of_base(session, "tiny") == []
