"""What tests do to jobs: create one over HTTP, claim one as a worker does."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from store.database import Sessions
from store.jobs import job_leases
from store.jobs.job_leases import JobLease

JOBS = "/v1/fine_tuning/jobs"


def create(client: TestClient, file_id: str, **options: Any) -> dict[str, Any]:
    answer = client.post(JOBS, json={"model": "tiny", "training_file": file_id} | options)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def claim(sessions: Sessions, job_id: str) -> JobLease:
    with sessions.begin() as session:
        owned = job_leases.claim(session, job_id, worker="w1", lease_seconds=60)
    assert owned is not None
    return owned
