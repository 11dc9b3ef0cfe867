"""A job on a revision of a dataset, through the worker and the real trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.datasets.pair_lists import materialise, pairs_of
from store.datasets import datasets
from store.datasets.datasets import NewPair
from store.jobs import jobs
from store.jobs.jobs import NewJob
from tests.store.rows import read_events, read_job
from tests.worker.conftest import Supervised, reread, upload
from worker.intake.file_intake import read_file
from worker.resources import Resources

pytestmark = pytest.mark.integration


def test_a_job_trains_on_the_revision_that_it_pinned_and_reports_what_its_validation_file_shares_with_it(
    resources: Resources, supervised: Supervised, project_id: str, archive: bytes, tiny_base: Path
) -> None:
    file = upload(resources, project_id, archive)
    read_file(resources, file.id)
    listed = list(pairs_of(resources.blobs, reread(resources, file).pairs_sha256 or ""))
    pairs = [NewPair(pair.prompt, pair.chosen, pair.rejected, file_id=file.id, file_row=pair.row) for pair in listed]
    spec = {
        "base": {"name": "tiny", "family": "sdxl", "source": str(tiny_base)},
        "method": {"type": "mapo", "mapo": {"hyperparameters": {"max_steps": 2, "batch_size": 2, "preset": "style"}}},
        "adapter": {"rank": 2},
        "validation": {"draws": 1},
        "name": "line-art",
    }
    with resources.sessions.begin() as session:
        dataset = datasets.create(session, project_id, "foxes", None, pairs)
        revision = datasets.revision(session, dataset, None)
        materialise(session, resources.blobs, revision)
        job_id = jobs.create(session, NewJob(project_id, spec, revision, reread(resources, file))).id
    with resources.sessions.begin() as session:
        dataset = datasets.lock(session, project_id, dataset.id)
        for pair in list(datasets.all_pairs(session, datasets.revision(session, dataset, 1))):
            datasets.remove(session, dataset, pair.id)
        datasets.delete(session, project_id, dataset.id)
    supervised.run(job_id).result()
    assert read_job(resources.sessions, job_id).status == "succeeded"
    events = [event for event in read_events(resources.sessions, job_id) if event.data]
    [prepared] = [event.data for event in events if event.data and event.data.get("event") == "data_prepared"]
    assert (prepared["training_pairs"], prepared["validation_pairs"], len(pairs)) == (14, 14, 14)
    codes = [event.data["code"] for event in events if event.level == "warn" and event.data]
    assert {"prompt_leaked", "image_leaked"} <= set(codes)
