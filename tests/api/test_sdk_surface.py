"""All that the unmodified openai SDK offers of what pairtune has, sync and async, against a live server and real work:
files, uploads, jobs, models, images, webhooks."""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from store import leases
from store.blobs.blobs import Blobs
from store.hints import Hints
from store.jobs import job_leases
from store.leases import Leases
from store.settings import Settings
from store.turns import FILES, JOBS
from tests.api.polling import until
from tests.api.serving import Live, serving
from tests.trainer.tiny_sdxl import PROMPTS, save_base
from tests.worker.pairs import archive_of
from tests.worker.receiver import receiving
from tests.worker.studio import studio
from tests.worker.webhook_steps import deliver, endpoint, secret
from worker.intake.file_intake import read_file
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration
HYPERPARAMETERS = {"preset": "style", "max_steps": 4, "batch_size": 2}
METHOD = {"type": "mapo", "mapo": {"hyperparameters": HYPERPARAMETERS}}
SMALL = {"adapter": {"rank": 2}, "validation": {"draws": 1}, "checkpoints": {"every_steps": 2}}


@dataclass(frozen=True)
class Workplace:
    live: Live
    resources: Resources
    work: threading.Lock

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody reads or trains meanwhile."""
        with self.work:
            yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Workplace]:
    """A server on a tiny base, and who reads, trains and draws what comes."""
    home = tmp_path_factory.mktemp("surface")
    with serving(home, postgres_url, valkey_url) as live:
        save_base(home / "tiny")
        settings = Settings(home=home, webhooks_allow_http=True, webhooks_allow_private=True)
        blobs = Blobs(settings.effective_blob_url)
        resources = Resources(settings, live.sessions, blobs, Hints("redis://none"), "surface")
        workplace = Workplace(live, resources, threading.Lock())
        with studio(resources), workshop(workplace):
            yield workplace


@contextmanager
def workshop(workplace: Workplace) -> Iterator[None]:
    stop, resources = threading.Event(), workplace.resources

    def waiting(what: Leases[Any]) -> list[str]:
        with resources.sessions() as session:
            return leases.unpublished(session, what, older_than_seconds=0)

    def work() -> None:
        while not stop.wait(0.1):
            with workplace.work:
                for file_id in waiting(FILES):
                    read_file(resources, file_id)
                for job_id in waiting(JOBS):
                    supervise(resources, job_id, stopping=stop.is_set)

    thread = threading.Thread(target=work, name="workshop")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Player:
    """One script for both clients: ``play`` has the answer of a call, awaited where it has to be."""

    def __init__(self, live: Live, kind: type[OpenAI] | type[AsyncOpenAI]) -> None:
        self.sdk: Any = kind(base_url=f"{live.url}/v1", api_key=live.tenant.api_key, max_retries=0)
        self._runner = asyncio.Runner()

    def play(self, call: Any) -> Any:
        return self._runner.run(_awaited(call)) if inspect.isawaitable(call) else call

    def every(self, page: Any) -> list[Any]:
        """All items of a list, page after page."""
        return self._runner.run(_gathered(page)) if hasattr(page, "__aiter__") else list(page)

    def streamed(self, manager: Any, read: Callable[[Any], Any]) -> Any:
        """What ``read`` finds in the answer of a call with_streaming_response."""
        if hasattr(manager, "__aenter__"):
            return self._runner.run(_entered(manager, read))
        with manager as answer:
            return read(answer)

    def close(self) -> None:
        self.play(self.sdk.close())
        self._runner.close()


async def _awaited(call: Any) -> Any:
    return await call


async def _gathered(page: Any) -> list[Any]:
    return [item async for item in page]


async def _entered(manager: Any, read: Callable[[Any], Any]) -> Any:
    async with manager as answer:
        return await read(answer)


@pytest.fixture(scope="module")
def trained(workplace: Workplace) -> Any:
    """A job that ran to its end, from the upload of its pairs."""
    player = Player(workplace.live, OpenAI)
    job = created(player, uploaded(player).id, suffix="line art", seed=3, metadata={"team": "icons"})
    until(lambda: player.sdk.fine_tuning.jobs.retrieve(job.id).status == "succeeded", seconds=120)
    done = player.sdk.fine_tuning.jobs.retrieve(job.id)
    player.close()
    return done


@pytest.fixture(params=[OpenAI, AsyncOpenAI], ids=["sync", "async"])
def player(workplace: Workplace, request: pytest.FixtureRequest) -> Iterator[Player]:
    player = Player(workplace.live, request.param)
    yield player
    player.close()


def uploaded(player: Player) -> Any:
    return player.play(player.sdk.files.create(file=("pairs.zip", archive_of(rejected=True)), purpose="fine-tune"))


def read(player: Player) -> Any:
    return player.play(player.sdk.files.wait_for_processing(uploaded(player).id, poll_interval=0.1))


def created(player: Player, file_id: str, **given: Any) -> Any:
    create = player.sdk.fine_tuning.jobs.create
    return player.play(create(model="tiny", training_file=file_id, method=METHOD, extra_body=SMALL, **given))


def test_files(player: Player) -> None:
    sdk, play = player.sdk, player.play
    file = uploaded(player)
    read = play(sdk.files.wait_for_processing(file.id, poll_interval=0.1, max_wait_seconds=60))
    assert (read.id, read.status) == (file.id, "processed")
    assert play(sdk.files.retrieve(file.id)) == read
    assert file.id in [one.id for one in player.every(sdk.files.list(purpose="fine-tune", limit=1))]
    assert play(sdk.files.content(file.id)).read() == archive_of(rejected=True)
    content = sdk.files.with_streaming_response.content(file.id)
    assert player.streamed(content, lambda answer: answer.read()) == archive_of(rejected=True)
    assert play(sdk.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError):
        play(sdk.files.retrieve(file.id))


def test_uploads(player: Player, tmp_path: Path) -> None:
    sdk, play = player.sdk, player.play
    content = bytes(range(256)) * 100
    begun = {"filename": "a.zip", "bytes": len(content), "mime_type": "application/zip", "purpose": "fine-tune"}
    upload = play(sdk.uploads.create(**begun))
    parts = [play(sdk.uploads.parts.create(upload.id, data=content[at : at + 12_800])).id for at in (12_800, 0)]
    whole = play(sdk.uploads.complete(upload.id, part_ids=parts[::-1]))
    assert (whole.status, play(sdk.files.content(whole.file.id)).read()) == ("completed", content)
    assert play(sdk.uploads.cancel(play(sdk.uploads.create(**begun)).id)).status == "cancelled"
    (tmp_path / "a.zip").write_bytes(content)
    chunked = sdk.uploads.upload_file_chunked(
        file=tmp_path / "a.zip", mime_type="application/zip", purpose="fine-tune", part_size=10_000
    )
    assert play(chunked).file.bytes == len(content)


def test_a_job_from_its_pairs_to_its_results(player: Player, trained: Any) -> None:
    sdk, play = player.sdk, player.play
    done = play(sdk.fine_tuning.jobs.retrieve(trained.id))
    assert (done.status, done.error, done.trained_tokens) == ("succeeded", None, None)
    assert (done.object, done.seed, done.metadata) == ("fine_tuning.job", 3, {"team": "icons"})
    reported = [event.message for event in player.every(sdk.fine_tuning.jobs.list_events(done.id, limit=5))]
    assert reported[-1] == "Created; the files are being read."
    checkpoints = player.every(sdk.fine_tuning.jobs.checkpoints.list(done.id, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [4, 2]
    names = {play(sdk.files.retrieve(file_id)).filename for file_id in done.result_files}
    assert "pytorch_lora_weights.safetensors" in names
    assert play(sdk.models.retrieve(done.fine_tuned_model)).owned_by == done.organization_id
    assert {"tiny", done.fine_tuned_model} <= {model.id for model in player.every(sdk.models.list())}


def test_images_of_an_adapter_as_bytes_and_of_a_checkpoint_by_url(player: Player, trained: Any) -> None:
    """Each draws one of them: a drawing costs a process. The base is drawn by the guide's example."""
    generate, few = player.sdk.images.generate, {"seed": 7, "steps": 1}
    if isinstance(player.sdk, OpenAI):
        [image] = player.play(generate(model=trained.fine_tuned_model, prompt=PROMPTS[0], extra_body=few)).data
        assert Image.open(io.BytesIO(base64.b64decode(image.b64_json))).size == (32, 32)
    else:
        model = f"{trained.fine_tuned_model}:ckpt-step-2"
        drawn = generate(model=model, prompt=PROMPTS[0], response_format="url", extra_body=few)
        [image] = player.play(drawn).data
        assert image.url.startswith("http://127.0.0.1:")


def test_models_go(player: Player, workplace: Workplace) -> None:
    sdk, play = player.sdk, player.play
    file = read(player)
    with workplace.closed():
        job = created(player, file.id)
        with workplace.live.sessions.begin() as session:
            owned = job_leases.claim(session, job.id, worker="w", lease_seconds=60)
            assert owned is not None
            job_leases.succeed(session, owned, results=[])
    model = play(sdk.fine_tuning.jobs.retrieve(job.id)).fine_tuned_model
    assert play(sdk.models.delete(model)).deleted
    with pytest.raises(openai.NotFoundError):
        play(sdk.models.retrieve(model))
    with pytest.raises(openai.PermissionDeniedError):
        play(sdk.models.delete("tiny"))


def test_jobs_pause_go_on_end_and_are_found_by_their_metadata(player: Player, workplace: Workplace) -> None:
    sdk, play, batch = player.sdk, player.play, {"batch": type(player.sdk).__name__}
    file = read(player)
    with workplace.closed(), receiving() as receiver:
        endpoint_id = endpoint(workplace.resources, workplace.live.tenant.id, receiver.url())
        ids = [created(player, file.id, metadata=batch).id for _ in range(3)]
        listed = player.every(sdk.fine_tuning.jobs.list(limit=2, metadata=batch))
        assert [job.id for job in listed] == ids[::-1]
        assert play(sdk.fine_tuning.jobs.pause(ids[0])).status == "paused"
        assert play(sdk.fine_tuning.jobs.resume(ids[0])).status == "queued"
        assert [play(sdk.fine_tuning.jobs.cancel(job_id)).status for job_id in ids] == ["cancelled"] * 3
        with pytest.raises(openai.ConflictError):
            play(sdk.fine_tuning.jobs.resume(ids[0]))
        for _ in ids:  # one at a time goes to an endpoint
            deliver(workplace.resources)
    signed = sdk.with_options(webhook_secret=secret(workplace.resources, endpoint_id)).webhooks
    for one in receiver.received:
        signed.verify_signature(one.body, one.headers)
    events = [signed.unwrap(one.body, one.headers) for one in receiver.received]
    assert {(event.type, event.data.id) for event in events} == {("fine_tuning.job.cancelled", one) for one in ids}
    with pytest.raises(openai.InvalidWebhookSignatureError):
        signed.verify_signature(receiver.received[0].body + b" ", receiver.received[0].headers)
