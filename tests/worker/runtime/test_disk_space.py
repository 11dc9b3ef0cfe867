"""With little room left a worker takes nothing, and takes it when there is room again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.store.rows import add_generation, queued_job, read_generation, read_job
from tests.worker.conftest import reread, upload
from worker.generation.generation import generate
from worker.intake.file_intake import read_file
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration


def test_without_disk_space_a_job_a_file_and_images_stay_where_they_are(
    resources: Resources, project_id: str, archive: bytes
) -> None:
    cramped = replace(resources, settings=resources.settings.model_copy(update={"min_free_bytes": 2**60}))
    job_id = queued_job(resources.sessions, project_id)
    file = upload(resources, project_id, archive)
    supervise(cramped, job_id, stopping=lambda: False)
    read_file(cramped, file.id)
    images = add_generation(resources.sessions, project_id)
    generate(cramped, images, stopping=lambda: False)
    assert read_generation(resources.sessions, images).status == "queued"
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt) == ("queued", 0)
    assert (reread(resources, file).status, reread(resources, file).attempt) == ("uploaded", 0)
    read_file(resources, file.id)
    assert reread(resources, file).status == "processed"
