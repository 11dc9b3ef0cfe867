"""Estimates: hand-worked numbers, and that each says whether it was measured or estimated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.fine_tuning.estimates.estimate import FineTuningJobEstimate, estimate
from api.fine_tuning.estimates.planned import planned
from store.database import Sessions
from store.jobs.run_history import MeasuredRun
from store.tables.file import File
from store.tables.idempotency import IdempotencyKey
from store.tables.job import Job
from store.tables.project import Project
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS, create
from tests.conftest import Tenant
from trainer.spec.family_facts import FAMILIES
from trainer.spec.resolved import resolve
from trainer.spec.run import RunSpec

BASE = {"name": "tiny", "family": "sdxl", "source": "/tiny"}


def spec(method: str = "sft", *, requested: dict[str, Any] | None = None, **options: Any) -> RunSpec:
    hyperparameters = {"max_steps": 100, "batch_size": 4} if requested is None else requested
    given = {"base": BASE, "method": {"type": method, method: {"hyperparameters": hyperparameters}}}
    return RunSpec.model_validate(given | options)


# 10 s of loading and the rest, 20 s of caching 40 pairs, 70 s of training 50 steps of 2 pairs.
MEASURED = MeasuredRun(
    spec=spec(requested={"max_steps": 50, "batch_size": 2}, adapter={"rank": 8}).model_dump(mode="json"),
    device="cpu",
    seconds=100,
    training_seconds=70,
    caching_seconds=20,
    steps=50,
    effective_batch_size=2,
    pairs=40,
    pixels=1024,
    peak_memory_bytes=1000,
    result_bytes=300,
    checkpoint_bytes=100,
)


def numbers(found: FineTuningJobEstimate) -> tuple[int | None, ...]:
    return found.seconds, found.seconds_low, found.seconds_high, found.peak_memory_bytes, found.disk_bytes


@pytest.mark.unit
def test_time_grows_with_steps_batch_and_pairs_and_the_rest_stays() -> None:
    plan = planned(spec(adapter={"rank": 8}), 60, 0)
    found = estimate(plan, [MEASURED])
    # 10 + 70 * (100 * 4) / (50 * 2) + 20 * 60 / 40 = 320; memory by the batch; 300 + 4 checkpoints of 100.
    assert numbers(found) == (320, 320, 320, 2000, 700)
    assert (found.steps, found.pairs, found.device, found.measured_runs) == (100, 60, "cpu", 1)
    assert found.basis == "measured on 1 job of sft on tiny"


@pytest.mark.unit
def test_pixels_scale_training_caching_and_memory_and_rank_scales_the_disk() -> None:
    plan = planned(spec(data={"resolution": 64}, adapter={"rank": 16}, checkpoints={"every_steps": 30}), 40, 0)
    found = estimate(plan, [MEASURED])
    # 4 times the pixels: 10 + 70 * 4 * 4 + 20 * 4; batch 2 times; twice the rank, 4 checkpoints in 100 steps.
    assert numbers(found) == (1210, 1210, 1210, 8000, 1400)
    smaller = estimate(planned(spec(requested={"max_steps": 50, "batch_size": 1}), 40, 0), [MEASURED])
    assert smaller.peak_memory_bytes == 1000  # never below what was measured


@pytest.mark.unit
def test_several_runs_give_the_median_and_their_range() -> None:
    runs = [replace(MEASURED, seconds=seconds) for seconds in (100, 130, 400)]
    found = estimate(planned(spec(requested={"max_steps": 50, "batch_size": 2}), 40, 0), runs)
    assert (found.seconds, found.seconds_low, found.seconds_high) == (130, 100, 400)
    assert found.basis == "measured on 3 jobs of sft on tiny"


@pytest.mark.unit
def test_runs_of_the_method_come_before_others_and_of_the_newest_device_alone() -> None:
    other = replace(MEASURED, spec=spec("dpo").model_dump(mode="json"))
    old = replace(MEASURED, device="another", seconds=1000)
    found = estimate(planned(spec(), 40, 0), [other, MEASURED, old])
    assert (found.measured_runs, found.device) == (1, "cpu")
    rough = estimate(planned(spec(), 40, 0), [other])
    assert rough.basis == "no measured run of sft on tiny: rough estimate from 1 job of dpo"


@pytest.mark.unit
def test_what_nothing_measured_is_estimated_and_says_so() -> None:
    sdxl = FAMILIES["sdxl"].network
    requested = {"max_steps": 100, "batch_size": 4}
    plan = planned(spec("mapo", requested=requested, data={"resolution": 512}, adapter={"rank": 32}), 60, 0)
    found = estimate(plan, [])
    # A quarter of the pixels. Each of 400 pairs: 2 images, there and back; 120 images encoded; 60 TFLOP/s.
    training, caching = 400 * 4 * sdxl.flops / 4 * 1.2, 120 * sdxl.encoding / 4
    assert found.seconds is not None
    assert found.seconds == pytest.approx(60 + (training + caching) / 60e12, abs=1)
    assert (found.seconds_low, found.seconds_high) == pytest.approx((found.seconds / 4, found.seconds * 4), abs=5)
    adapter = 2 * sdxl.adapter
    weights, stored = 2 * sdxl.parameters, 8 * sdxl.activations / 4
    assert found.peak_memory_bytes == pytest.approx(1.5 * 2**30 + weights + 16 * adapter + stored, rel=1e-6)
    assert found.disk_bytes == pytest.approx((8 + 4 * 16) * adapter + 4 * 2**20, rel=1e-6)
    assert (found.steps, found.device, found.measured_runs) == (100, None, 0)
    assert found.basis.startswith("no measured run of tiny here: estimated from 2,567 million parameters for one GPU")


@pytest.mark.unit
def test_runs_at_another_size_measure_nothing_at_the_bases_own() -> None:
    larger = replace(MEASURED, spec=spec(data={"resolution": 64}).model_dump(mode="json"))
    found = estimate(planned(spec(), 40, 0), [larger])
    assert found.basis.startswith("no measured run of tiny here at this resolution: estimated")
    assert (found.measured_runs, None in numbers(found)) == (0, False)


@pytest.mark.unit
@pytest.mark.parametrize("runs", [[], [MEASURED]])
def test_files_that_are_not_read_leave_the_time_open_and_nothing_else(runs: list[MeasuredRun]) -> None:
    unread = estimate(planned(spec(requested={"n_epochs": 2, "batch_size": 4}), None, 0), runs)
    assert numbers(unread)[:3] == (None,) * 3
    assert None not in numbers(unread)[3:]
    assert unread.basis.endswith("the files decide the steps, and are not read yet: ask again when they are")
    reported = estimate(planned(spec(), None, 0), runs)
    assert None not in numbers(reported)  # the steps are known without the pairs
    assert "not read" not in reported.basis


@pytest.mark.unit
def test_epochs_count_the_pairs_that_are_left_for_training() -> None:
    requested = {"n_epochs": 3, "batch_size": 4}
    assert planned(spec(requested=requested), 100, 0).resolved.max_steps == 3 * 23  # type: ignore[union-attr]  # of 90
    held_out = planned(spec(requested=requested), 100, 20)
    assert held_out.pairs == 120
    assert held_out.resolved.max_steps == 3 * 25  # type: ignore[union-attr]


def rows(sessions: Sessions) -> tuple[int, int]:
    with sessions() as session:
        return session.query(Job).count(), session.query(IdempotencyKey).count()


@pytest.mark.integration
def test_a_dry_run_checks_everything_and_makes_nothing(
    client: TestClient, sessions: Sessions, project: Tenant, file_id: str
) -> None:
    before = rows(sessions)
    with sessions.begin() as session:
        session.get_one(File, file_id).pairs_count = 30
    requested = {"model": "tiny", "training_file": file_id, "dry_run": True, "method": {"type": "dreambooth"}}
    refused = client.post(JOBS, json=requested | {"seed": -1}, headers={"idempotency-key": "dry"})
    assert {field_error["param"] for field_error in refused.json()["error"]["errors"]} >= {"seed"}
    requested["method"] = {"type": "sft"}
    headers = {"idempotency-key": "dry", "x-stainless-retry-count": "1"}
    answer = client.post(JOBS, json=requested, headers=headers)
    assert answer.status_code == 200, answer.text
    reported = answer.json()
    assert (reported["object"], reported["model"], reported["method"], reported["pairs"]) == (
        "fine_tuning.job.estimate",
        "tiny",
        "sft",
        30,
    )
    assert reported["steps"] == 100  # the least of "auto"
    unread = add_file(sessions, project.id, status="uploaded")
    reported = client.post(JOBS, json=requested | {"training_file": unread.id}).json()
    assert (reported["pairs"], reported["steps"], reported["seconds"]) == (None, None, None)
    assert reported["peak_memory_bytes"] > 0
    assert rows(sessions) == before
    faulty = client.post(JOBS, json=requested | {"dry_run": "yes"})
    assert (faulty.status_code, faulty.json()["error"]["param"]) == (400, "dry_run")
    assert "dry_run" not in create(client, file_id, dry_run=False)


@pytest.mark.integration
def test_a_dry_run_of_a_job_beyond_the_quota_is_refused(
    client: TestClient, sessions: Sessions, project: Tenant, file_id: str
) -> None:
    requested = {"model": "tiny", "training_file": file_id, "dry_run": True}
    with sessions.begin() as session:
        session.get_one(Project, project.id).limits = {"queued_jobs": 0}
    dry, real = (client.post(JOBS, json=requested | {"dry_run": dry}) for dry in (True, False))
    assert (dry.status_code, dry.json()["error"]["code"]) == (403, "quota_exceeded")
    assert dry.json()["error"]["message"] == real.json()["error"]["message"]


def test_what_is_held_out_of_many_pairs_is_no_more_than_is_measured() -> None:
    one_epoch = {"n_epochs": 1, "batch_size": 10}
    assert planned(spec(requested=one_epoch), 50_000, 0).resolved == resolve(
        spec(requested=one_epoch).method, 50_000 - 256
    )
