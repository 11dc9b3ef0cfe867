"""The job of the OpenAPI document's examples: the row that the example request makes, while a worker trains it."""

from __future__ import annotations

from datetime import UTC, datetime

from api.errors.example_ids import BASE, CREATED, FILE, JOB, PROJECT
from api.fine_tuning import examples
from api.fine_tuning.fields import columns
from api.fine_tuning.request import CreateFineTuningJob
from api.fine_tuning.run_spec import Offer, run_spec
from store.base_models import RegisteredBase
from store.job_status import JobStatus
from store.tables.job import Job


def running() -> Job:
    """In no session; a column that is not set here is null."""
    request = CreateFineTuningJob.model_validate(examples.REQUEST)
    base = RegisteredBase(BASE, "sdxl", "/bases/emoji-xl", None)
    return Job(
        id=JOB,
        project_id=PROJECT,
        status=JobStatus.RUNNING,
        created_at=datetime.fromtimestamp(CREATED, UTC),
        estimated_finish=datetime.fromtimestamp(CREATED + 240, UTC),
        spec=run_spec(request, base, Offer({BASE: base}, None), JOB).model_dump(mode="json"),
        training_file_id=FILE,
        **columns(request),
        result_files=[],
        progress=examples.STEP | {"max_steps": 150, "eta_seconds": 112.0},
        attempt=1,
    )
