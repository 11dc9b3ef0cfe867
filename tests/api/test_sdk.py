"""The unmodified openai SDK against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning.job_create_params import Method

from store import leases
from tests.api.conftest import Live, finish_intake

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
        owned = leases.claim(session, job.id, worker="w", lease_seconds=60)
        assert owned is not None
        leases.add_checkpoint(session, owned, step=10, metrics={"valid_loss": 0.5}, manifest={})
    messages = [event.message for event in sdk.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert messages[0] == "Checkpoint at step 10."
    assert messages[-1] == "Created; waiting for a worker."
    [checkpoint] = sdk.fine_tuning.jobs.checkpoints.list(job.id)
    assert (checkpoint.step_number, checkpoint.metrics.valid_loss) == (10, 0.5)
    with live.sessions.begin() as session:
        leases.succeed(session, owned, results=[])
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
    with pytest.raises(openai.BadRequestError, match="they stand in method"):
        sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, hyperparameters={"n_epochs": 3})
    with pytest.raises(openai.BadRequestError, match="should be 'mapo', 'dpo', 'sft', 'dco' or 'dreambooth'"):
        sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id, method={"type": "supervised"})


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
    assert {fault["param"] for fault in bad.value.body["errors"]} == {"model", "training_file", "seed"}
    assert str(bad.value.request_id) in live.log.read_text()


def test_an_automatic_retry_of_the_sdk_finds_the_first_job(sdk: OpenAI, file_id: str) -> None:
    def create(count: str) -> str:
        retried = {"x-stainless-retry-count": count}
        return sdk.fine_tuning.jobs.create(
            model="tiny", training_file=file_id, suffix="retried", extra_headers=retried
        ).id

    assert create("0") == create("1") == create("2")
