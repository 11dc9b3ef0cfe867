"""Methods other than MaPO as jobs, with the real trainer on a tiny base and pairs that have a chosen image only."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from store.files import files
from store.tables.file import File
from store.tables.job import Job, JobEvent
from tests.store.rows import read_events, read_job
from tests.worker.conftest import NewJob, Supervised
from worker.resources import Resources

pytestmark = pytest.mark.integration

SAMPLING = {"steps": 2}  # as in new_job
ALWAYS = ["README.md", "manifest.json", "metrics.jsonl", "samples.png", "spec.json"]


def finished(resources: Resources, supervised: Supervised, job_id: str) -> Job:
    supervised.run(job_id).result()
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.error) == ("succeeded", None)
    return job


def reported(resources: Resources, job: Job, kind: str) -> list[tuple[JobEvent, dict[str, Any]]]:
    events = read_events(resources.sessions, job.id)
    return [(event, event.data) for event in events if event.data is not None and event.data.get("event") == kind]


def result_names(resources: Resources, job: Job) -> list[str]:
    with resources.sessions() as session:
        by_id = {file.id: file.filename for file in files.by_ids(session, job.result_files)}
    return [by_id[file_id] for file_id in job.result_files]


def test_dpo_trains_on_chosen_images_against_what_the_base_generates(
    resources: Resources, supervised: Supervised, new_job: NewJob, chosen_only: bytes
) -> None:
    job = finished(resources, supervised, new_job(method="dpo", data=chosen_only))
    ((prepared, data),) = reported(resources, job, "data_prepared")
    assert data["drawn_images"] == 14
    assert "The base sampled 14 images." in prepared.message
    ((beta, _),) = reported(resources, job, "beta_chosen")
    assert beta.message.startswith("beta is 5000: ")
    assert job.progress is not None
    assert job.progress["step"] == 6
    assert job.progress["margin"] is not None
    assert result_names(resources, job) == ["pytorch_lora_weights.safetensors", "line-art.safetensors", *ALWAYS]


def test_sft_reports_progress_without_a_margin_and_its_samples_are_files_at_once(
    resources: Resources, supervised: Supervised, new_job: NewJob, chosen_only: bytes
) -> None:
    sampling = {**SAMPLING, "prompts": ["a drawing of a cat", "a drawing of a hat"]}
    job = finished(resources, supervised, new_job(method="sft", data=chosen_only, sampling=sampling))
    assert job.progress is not None
    assert (job.progress["step"], job.progress["margin"], job.progress["rejected_loss"]) == (6, None, None)
    assert job.estimated_finish is not None
    assert all("margin" not in event.message for event, _ in reported(resources, job, "progress"))
    ((_, data),) = reported(resources, job, "data_prepared")
    assert 0 < data["drawn_images"] < 14  # of the held-out pairs alone
    samples = reported(resources, job, "sample")
    assert [data["step"] for _, data in samples] == [0, 3, 6]
    assert samples[0][0].message.startswith("Samples of the base: 2 images in ")
    with resources.sessions() as session:
        sheets = [session.get_one(File, data["file_id"]) for _, data in samples]
    assert [grid.filename for grid in sheets] == [f"samples-step-{step}.png" for step in (0, 3, 6)]
    heights = []
    for grid in sheets:
        with Image.open(io.BytesIO(resources.blobs.read(grid.sha256))) as image:
            heights.append(image.height)
    assert heights[-1] > heights[0]  # a row for each step
    assert result_names(resources, job) == ["pytorch_lora_weights.safetensors", "line-art.safetensors", *ALWAYS]
    *_, (result, data) = reported(resources, job, "metrics")
    assert data["final"]
    assert result.message.startswith("Result, from step ")
