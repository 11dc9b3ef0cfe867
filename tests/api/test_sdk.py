"""The unmodified openai SDK against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Upload
from openai.types.fine_tuning.job_create_params import Method

from store.jobs import job_leases
from store.roles import Role
from store.tenants import api_keys, projects
from tests.api.conftest import finish_intake
from tests.api.polling import until
from tests.api.serving import Live
from trainer.spec.method_facts import METHODS, listed

pytestmark = pytest.mark.integration
METHOD = {"type": "mapo", "mapo": {"hyperparameters": {"beta": 64, "max_steps": 10}}}


@pytest.fixture
def sdk(live: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.url}/v1", api_key=live.tenant.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def file_id(sdk: OpenAI, live: Live) -> str:
    file = sdk.files.create(file=("pairs.zip", b"not really"), purpose="fine-tune")
    finish_intake(live.sessions, file.id, status="processed", details=None)
    return file.id


def test_files_go_up_come_down_and_go_away(sdk: OpenAI) -> None:
    content = bytes(range(256)) * 1000
    file = sdk.files.create(file=("päirs.zip", content), purpose="fine-tune")
    assert (file.object, file.bytes, file.filename, file.status) == ("file", 256_000, "päirs.zip", "uploaded")
    assert sdk.files.retrieve(file.id) == file
    assert file.id in [listed.id for listed in sdk.files.list(purpose="fine-tune", order="asc")]
    assert sdk.files.content(file.id).read() == content
    assert sdk.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(file.id)


def test_a_file_goes_up_in_parts_from_the_disk(sdk: OpenAI, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "päirs.zip").write_bytes(content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    upload = sdk.uploads.upload_file_chunked(
        file=tmp_path / "päirs.zip", mime_type="application/zip", purpose="fine-tune", part_size=100_000, md5=md5
    )
    assert (upload.object, upload.status, upload.bytes, upload.filename) == (
        "upload",
        "completed",
        256_000,
        "päirs.zip",
    )
    assert upload.file is not None
    assert sdk.files.retrieve(upload.file.id) == upload.file
    assert sdk.files.content(upload.file.id).read() == content


def test_a_file_goes_up_in_parts_from_memory(sdk: OpenAI) -> None:
    upload = sdk.uploads.upload_file_chunked(
        file=b"x" * 1000, filename="a.zip", bytes=1000, mime_type="application/zip", purpose="fine-tune"
    )
    assert upload.file is not None
    assert (upload.status, upload.file.bytes) == ("completed", 1000)


def test_the_async_sdk_sends_parts_at_once(live: Live) -> None:
    async def send() -> Upload:
        async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key=live.tenant.api_key, max_retries=0) as sdk:
            upload = await sdk.uploads.create(
                bytes=4000, filename="a.zip", mime_type="application/zip", purpose="fine-tune"
            )
            parts = await asyncio.gather(*(sdk.uploads.parts.create(upload.id, data=b"x" * 1000) for _ in range(4)))
            return await sdk.uploads.complete(upload.id, part_ids=[part.id for part in parts])

    assert asyncio.run(send()).status == "completed"


def test_faults_of_an_upload_are_the_sdks_errors(sdk: OpenAI) -> None:
    upload = sdk.uploads.create(bytes=5, filename="a.zip", mime_type="application/zip", purpose="fine-tune")
    part = sdk.uploads.parts.create(upload.id, data=b"abcde")
    assert (part.object, part.upload_id) == ("upload.part", upload.id)
    with pytest.raises(openai.BadRequestError) as mismatch:
        sdk.uploads.complete(upload.id, part_ids=[part.id], md5="0" * 32)
    assert mismatch.value.code == "checksum_mismatch"
    assert sdk.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.ConflictError, match="cancelled"):
        sdk.uploads.complete(upload.id, part_ids=[part.id])
    with pytest.raises(openai.NotFoundError):
        sdk.uploads.cancel("upload-none")


def test_a_jobs_whole_life_through_the_sdk(sdk: OpenAI, live: Live, file_id: str) -> None:
    job = sdk.fine_tuning.jobs.create(
        model="tiny",
        training_file=file_id,
        method=METHOD,  # type: ignore[arg-type]  # the SDK's types know OpenAI's methods; the wire takes any
        suffix="art",
        seed=3,
        metadata={"suite": "life"},
        extra_body={"adapter": {"rank": 8}},
    )
    assert (job.object, job.status, job.seed, job.model) == ("fine_tuning.job", "queued", 3, "tiny")
    # Outside the SDK's enum, so compared as plain text.
    assert str(sdk.fine_tuning.jobs.pause(job.id).status) == "paused"
    assert sdk.fine_tuning.jobs.resume(job.id).status == "queued"
    with live.sessions.begin() as session:
        owned = job_leases.claim(session, job.id, worker="w", lease_seconds=60)
        assert owned is not None
        job_leases.add_checkpoint(session, owned, step=10, metrics={"valid_loss": 0.5}, manifest={})
    messages = [event.message for event in sdk.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert messages[0] == "Checkpoint at step 10."
    assert messages[-1] == "Created; waiting for a worker."
    [checkpoint] = sdk.fine_tuning.jobs.checkpoints.list(job.id)
    assert (checkpoint.step_number, checkpoint.metrics.valid_loss) == (10, 0.5)
    with live.sessions.begin() as session:
        job_leases.succeed(session, owned, results=[])
    done = sdk.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded"
    assert done.finished_at is not None
    assert done.fine_tuned_model is not None
    assert sdk.models.retrieve(done.fine_tuned_model).owned_by == live.tenant.id
    assert {"tiny", done.fine_tuned_model} <= {model.id for model in sdk.models.list()}
    with pytest.raises(openai.ConflictError, match="succeeded and cannot be cancelled"):
        sdk.fine_tuning.jobs.cancel(job.id)


def test_the_sdks_own_dpo_request_is_taken_as_it_is_typed(sdk: OpenAI, file_id: str) -> None:
    method: Method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "batch_size": 1, "n_epochs": 2}}}
    job = sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, method=method)
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert (job.method.type, job.method.dpo.hyperparameters.beta, job.hyperparameters.n_epochs) == ("dpo", 0.1, 2)


def test_what_the_sdk_can_say_and_we_cannot_do_is_refused_with_what_to_write(sdk: OpenAI, file_id: str) -> None:
    method: Method = {"type": "dpo", "dpo": {"hyperparameters": {"learning_rate_multiplier": 2.0}}}
    with pytest.raises(openai.BadRequestError, match="give learning_rate, the rate itself"):
        sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, method=method)
    with pytest.raises(openai.BadRequestError, match=f"should be {listed(map(repr, METHODS))}"):
        sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, method={"type": "supervised"})


def test_hyperparameters_of_the_sdks_first_form_are_the_methods(sdk: OpenAI, file_id: str) -> None:
    job = sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, hyperparameters={"n_epochs": 3})
    assert job.hyperparameters.n_epochs == 3


def test_lists_page_by_themselves_and_filter_by_metadata(sdk: OpenAI, file_id: str) -> None:
    def create(batch: str | None) -> str:
        metadata = {"batch": batch} if batch else None
        return sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, metadata=metadata).id

    marked = [create("b1") for _ in range(5)]
    plain = create(None)
    listed = [job.id for job in sdk.fine_tuning.jobs.list(limit=2, metadata={"batch": "b1"})]
    assert listed == marked[::-1]
    everything = [job.id for job in sdk.fine_tuning.jobs.list(limit=2)]
    assert everything[:6] == [plain, *marked[::-1]]
    assert sdk.fine_tuning.jobs.cancel(plain).status == "cancelled"


def test_errors_map_to_the_sdks_classes_with_their_request_id(sdk: OpenAI, live: Live) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong_key:
        sdk.with_options(api_key="pt-wrong").models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.fine_tuning.jobs.retrieve("ftjob-none")
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.fine_tuning.jobs.create(model="gpt", training_file="file-none", seed=-1)
    assert all(error.value.request_id for error in (wrong_key, missing, bad))
    assert (missing.value.code, missing.value.param) == ("fine_tuning_job_not_found", "fine_tuning_job_id")
    assert isinstance(bad.value.body, dict)
    assert {field_error["param"] for field_error in bad.value.body["errors"]} == {"model", "training_file", "seed"}
    until(lambda: str(bad.value.request_id) in live.log.read_text())  # a request is logged after its answer


def test_roles_quotas_and_rates_are_the_sdks_errors_and_it_waits_as_long_as_the_answer_says(
    sdk: OpenAI, live: Live
) -> None:
    with live.sessions.begin() as session:
        own = {"stored_bytes": 5, "requests_per_minute": 60, "requests_burst": 2}
        projects.set_limits(session, "narrow", own=own, dropped=())
        narrow = api_keys.ensure_project(session, "narrow")
        reader, member = (api_keys.create(session, narrow, role, role) for role in (Role.READ_ONLY, Role.MEMBER))
    refused: dict[str, str | None] = {}
    for key in (reader, member):
        with pytest.raises(openai.PermissionDeniedError) as error:
            sdk.with_options(api_key=key).files.create(file=("a.zip", b"too much"), purpose="fine-tune")
        refused[key] = error.value.code
    assert refused == {reader: "insufficient_role", member: "quota_exceeded"}
    assert sdk.with_options(api_key=reader).models.list().data
    with pytest.raises(openai.RateLimitError):
        [sdk.with_options(api_key=reader).models.list() for _ in range(10)]
    began = time.monotonic()
    assert [sdk.with_options(api_key=reader, max_retries=4).models.list().data for _ in range(2)]
    assert time.monotonic() - began > 0.5


def test_an_automatic_retry_of_the_sdk_finds_the_first_job(sdk: OpenAI, file_id: str) -> None:
    def create(count: str) -> str:
        retried = {"x-stainless-retry-count": count}
        return sdk.fine_tuning.jobs.create(
            model="tiny", training_file=file_id, suffix="retried", extra_headers=retried
        ).id

    assert create("0") == create("1") == create("2")
