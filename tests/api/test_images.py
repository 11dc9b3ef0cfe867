"""Asking for images: what is refused, what is queued, and what is answered before, after and instead of the drawing."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from store.blobs.blobs import Blobs
from store.database import Sessions
from store.files import files
from store.files.files import NewFile
from store.generations import generation_leases
from store.generations.generation_leases import GenerationLease
from store.jobs import job_leases
from store.settings import Settings
from store.tables.generation import Generation
from store.tenants import projects
from tests import servers
from tests.api.conftest import open_client
from tests.api.job_steps import claim, create
from tests.api.polling import until
from tests.api.serving import serving
from tests.conftest import Tenant
from tests.store.rows import read_generation, read_job

pytestmark = pytest.mark.integration
IMAGES = "/v1/images/generations"
REQUESTED = {"model": "tiny", "prompt": "a cat", "seed": 7}


@pytest.fixture(scope="module")
def _hasty(settings: Settings) -> Iterator[TestClient]:
    with open_client(settings.model_copy(update={"images_wait_seconds": 0.3})) as client:
        yield client


@pytest.fixture
def hasty(_hasty: TestClient, api_key: str, broker_url: str) -> TestClient:
    """Of an API that waits 0.3 s for images."""
    _hasty.headers["authorization"] = f"Bearer {api_key}"
    return _hasty


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs(settings.effective_blob_url)


def queued(hasty: TestClient, **fields: Any) -> str:
    """The id of images that nobody draws."""
    answer = hasty.post(IMAGES, json=REQUESTED | fields)
    assert answer.status_code == 503, answer.text
    generation_id: str = answer.json()["error"]["generation_id"]
    return generation_id


def taken(sessions: Sessions, generation_id: str) -> GenerationLease:
    with sessions.begin() as session:
        owned = generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
    assert owned is not None
    return owned


def draw(sessions: Sessions, blobs: Blobs, generation_id: str, *contents: bytes) -> None:
    images = [blobs.put_bytes(content) for content in contents]
    made = [{"sha256": blob.sha256, "bytes": blob.bytes} for blob in images]
    owned = taken(sessions, generation_id)
    result = {"images": made, "width": 32, "height": 32, "guidance": 5.0, "seconds": 1.5}
    with sessions.begin() as session:
        generation_leases.succeed(session, owned, result=result)


def test_every_fault_is_reported_at_once_and_nothing_is_queued(client: TestClient, broker_url: str) -> None:
    requested = {"model": "gpt", "prompt": "", "n": 11, "size": "10x4096", "steps": 0, "seed": -1, "quality": "hd"}
    answer = client.post(IMAGES, json=requested)
    assert answer.status_code == 400
    field_errors = {field_error["param"]: field_error for field_error in answer.json()["error"]["errors"]}
    assert set(field_errors) == set(requested)
    assert field_errors["model"]["code"] == "model_not_found"
    assert "give steps, the denoising steps of an image" in field_errors["quality"]["message"]
    assert "each side 16 to 2048 pixels" in field_errors["size"]["message"]
    with servers.broker_client(broker_url) as broker:
        assert broker.llen("draw") == 0


@pytest.mark.parametrize("size", ["64", "64x", "x64", "064x64", "64x64x64", "15x64", "64x2049", "６４x64", ""])
def test_a_size_is_auto_or_two_sides(client: TestClient, size: str) -> None:
    answer = client.post(IMAGES, json=REQUESTED | {"size": size})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "size")


def test_what_nobody_generates_in_time_stays_queued_under_its_id(
    hasty: TestClient, sessions: Sessions, broker_url: str
) -> None:
    answer = hasty.post(IMAGES, json=REQUESTED | {"size": "64x32", "negative_prompt": "a dog", "n": 2})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("generation_queued", "server_error")
    with servers.broker_client(broker_url) as broker:
        assert broker.llen("draw") == 1
    found = hasty.get(f"{IMAGES}/{error['generation_id']}").json()
    reported = (
        "object",
        "status",
        "model",
        "prompt",
        "negative_prompt",
        "n",
        "size",
        "seed",
        "steps",
        "guidance",
        "data",
    )
    assert [found[name] for name in reported] == [
        "image.generation",
        "queued",
        "tiny",
        "a cat",
        "a dog",
        2,
        "64x32",
        7,
        25,
        "auto",
        [],
    ]
    row = read_generation(sessions, error["generation_id"])
    assert row.published_at is not None


def test_what_is_being_generated_for_longer_than_a_request_waits_is_504(hasty: TestClient, sessions: Sessions) -> None:
    generation_id = queued(hasty)
    taken(sessions, generation_id)
    answer = hasty.post(IMAGES, json=REQUESTED, headers={"x-stainless-retry-count": "1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (504, "5")
    error = answer.json()["error"]
    assert (error["code"], error["generation_id"]) == ("generation_running", generation_id)


def test_a_retry_of_the_client_and_an_idempotency_key_wait_for_the_first_try(
    hasty: TestClient, sessions: Sessions, blobs: Blobs
) -> None:
    key, retry = {"idempotency-key": "one"}, {"x-stainless-retry-count": "2"}
    first = hasty.post(IMAGES, json=REQUESTED, headers=key).json()["error"]["generation_id"]
    for headers in (key, retry):
        assert hasty.post(IMAGES, json=REQUESTED, headers=headers).json()["error"]["generation_id"] == first
    assert hasty.post(IMAGES, json=REQUESTED | {"n": 2}, headers=key).status_code == 422
    draw(sessions, blobs, first, b"one")
    replayed = hasty.post(IMAGES, json=REQUESTED, headers=key)
    assert (replayed.status_code, replayed.headers["idempotent-replayed"]) == (200, "true")
    retried = hasty.post(IMAGES, json=REQUESTED, headers=retry)
    assert retried.json() == replayed.json()
    assert queued(hasty) != first  # requested again on purpose


def test_generated_images_are_answered_in_the_requested_form(
    client: TestClient, hasty: TestClient, sessions: Sessions, blobs: Blobs, api_key: str
) -> None:
    generation_id = queued(hasty, n=2)
    waiting = threading.Thread(target=draw, args=(sessions, blobs, generation_id, b"one", b"two"))
    waiting.start()
    retry = {"x-stainless-retry-count": "1"}
    answer = client.post(IMAGES, json=REQUESTED | {"n": 2}, headers=retry)
    waiting.join()
    assert answer.status_code == 200
    body = answer.json()
    encoded = [base64.b64encode(content).decode() for content in (b"one", b"two")]
    assert [(one["b64_json"], one["url"], one["seed"]) for one in body["data"]] == [
        (encoded[0], None, 7),
        (encoded[1], None, 8),
    ]
    reported = ("id", "size", "model", "seed", "steps", "guidance", "seconds")
    assert [body[name] for name in reported] == [generation_id, "32x32", "tiny", 7, 25, 5.0, 1.5]
    assert abs(body["created"] - time.time()) < 60
    later = client.get(f"{IMAGES}/{generation_id}").json()
    assert [one["url"] for one in later["data"]] == [
        f"http://testserver{IMAGES}/{generation_id}/images/{index}" for index in (0, 1)
    ]
    assert client.get(later["data"][1]["url"]).content == b"two"
    for index, status in (("2", 404), ("-1", 400), ("x", 400)):
        assert client.get(f"{IMAGES}/{generation_id}/images/{index}").status_code == status
    encoded_later = client.get(f"{IMAGES}/{generation_id}?response_format=b64_json").json()
    assert [one["b64_json"] for one in encoded_later["data"]] == encoded


def test_a_generation_that_failed_says_why_and_is_not_retried_by_the_client(
    hasty: TestClient, sessions: Sessions
) -> None:
    retry = {"x-stainless-retry-count": "1"}
    generation_id = queued(hasty)
    owned = taken(sessions, generation_id)
    with sessions.begin() as session:
        generation_leases.fail(session, owned, code="out_of_memory", message="Out of memory.")
    answer = hasty.post(IMAGES, json=REQUESTED, headers=retry)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    error = answer.json()["error"]
    assert (error["code"], error["generation_id"]) == ("generation_failed", generation_id)
    assert error["message"].endswith(" failed: Out of memory.")
    found = hasty.get(f"{IMAGES}/{generation_id}").json()
    assert (found["status"], found["error"]["code"], found["data"]) == ("failed", "out_of_memory", [])


def test_a_seed_is_chosen_where_none_is_given(hasty: TestClient, sessions: Sessions) -> None:
    requested = {"seed": None}
    seeds = {read_generation(sessions, queued(hasty, **requested)).spec["seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.fixture
def trained(client: TestClient, sessions: Sessions, project: Tenant, file_id: str) -> str:
    """The id of a finished job with an adapter of two files and a checkpoint at step 5."""
    job_id: str = create(client, file_id, suffix="a:b", adapter={"rank": 3})["id"]
    owned = claim(sessions, job_id)
    names = ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors", "README.md")
    with sessions.begin() as session:
        manifest = {name: {"sha256": name[0] * 64, "bytes": 1} for name in ("tensors.safetensors", "state.json")}
        job_leases.add_checkpoint(session, owned, step=5, metrics={}, manifest=manifest)
        results = [NewFile(project.id, name, "fine-tune-results", 1, str(at) * 64) for at, name in enumerate(names)]
        job_leases.succeed(session, owned, results=results)
    return job_id


def test_names_lead_to_the_adapters_files_and_its_base(hasty: TestClient, sessions: Sessions, trained: str) -> None:
    job = read_job(sessions, trained)
    exported = read_generation(sessions, queued(hasty, model=job.fine_tuned_model))
    assert exported.weights == {"pytorch_lora_weights.safetensors": "0" * 64, "learned_embeds.safetensors": "1" * 64}
    assert (exported.spec["weights"], exported.spec["adapter"]["rank"]) == ("export", 3)
    assert exported.spec["base"] == job.spec["base"]
    checkpoint = read_generation(sessions, queued(hasty, model=f"{job.fine_tuned_model}:ckpt-step-5"))
    assert checkpoint.weights == {"tensors.safetensors": "t" * 64}
    assert (checkpoint.spec["weights"], checkpoint.model) == ("checkpoint", f"{job.fine_tuned_model}:ckpt-step-5")


def test_names_that_lead_nowhere_are_refused(
    hasty: TestClient, sessions: Sessions, trained: str, project: Tenant, other_project: Tenant
) -> None:
    model = str(read_job(sessions, trained).fine_tuned_model)
    tail = trained.removeprefix("ftjob-")
    wrong = [f"{model}:ckpt-step-6", f"{model}:ckpt-step-", f"{model}:ckpt-step-²", f"ft:tiny:c:{tail}:ckpt-step-5"]
    for name in (*wrong, f"{model}:ckpt-step-{'9' * 40}", ":ckpt-step-5"):
        answer = hasty.post(IMAGES, json=REQUESTED | {"model": name})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_found"), name
    theirs = {"authorization": f"Bearer {other_project.api_key}"}
    for name in (model, f"{model}:ckpt-step-5"):
        assert hasty.post(IMAGES, json=REQUESTED | {"model": name}, headers=theirs).status_code == 400
    with sessions.begin() as session:
        files.delete(session, project.id, read_job(sessions, trained).result_files[0])
    answer = hasty.post(IMAGES, json=REQUESTED | {"model": model})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "adapter_deleted")
    assert queued(hasty, model=f"{model}:ckpt-step-5")


def test_requests_that_wait_hold_up_nobody(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str
) -> None:
    """More of them than the API has threads and connections to the database."""
    home = tmp_path_factory.mktemp("live")
    with serving(home, postgres_url, valkey_url, images_wait_seconds=12) as live:
        headers = {"authorization": f"Bearer {live.tenant.api_key}"}

        def ask(_: int) -> int:
            return httpx.post(f"{live.url}{IMAGES}", json=REQUESTED, headers=headers, timeout=60).status_code

        def all_are_queued() -> bool:
            with live.sessions() as session:
                return session.query(Generation).count() == 60

        with ThreadPoolExecutor(60) as pool:
            requested = [pool.submit(ask, index) for index in range(60)]
            until(all_are_queued, seconds=20)
            started = time.monotonic()
            assert httpx.get(f"{live.url}/v1/models", headers=headers).status_code == 200
            assert time.monotonic() - started < 2
            assert not any(one.done() for one in requested)
            assert {one.result() for one in requested} == {503}


def test_a_queued_request_is_cancelled_at_once_and_its_repetition_says_so(
    hasty: TestClient, sessions: Sessions
) -> None:
    generation_id = queued(hasty)
    answer = hasty.post(f"{IMAGES}/{generation_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert hasty.post(f"{IMAGES}/{generation_id}/cancel").json()["status"] == "cancelled"
    with sessions.begin() as session:
        assert generation_leases.claim(session, generation_id, worker="w", lease_seconds=60) is None
    again = hasty.post(IMAGES, json=REQUESTED, headers={"x-stainless-retry-count": "1"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "generation_cancelled")
    assert again.headers["x-should-retry"] == "false"


def test_a_running_request_is_cancelled_by_its_worker(hasty: TestClient, sessions: Sessions) -> None:
    generation_id = queued(hasty)
    owned = taken(sessions, generation_id)
    assert hasty.post(f"{IMAGES}/{generation_id}/cancel").json()["status"] == "running"
    with sessions.begin() as session:
        assert generation_leases.renew(session, owned, lease_seconds=60)
        generation_leases.crash(session, owned, code="c", message="m", crash_cap=3)  # a worker that dies ends it too
    assert hasty.get(f"{IMAGES}/{generation_id}").json()["status"] == "cancelled"


def test_what_has_ended_stays_as_it_is_when_it_is_cancelled(
    hasty: TestClient, sessions: Sessions, blobs: Blobs
) -> None:
    generation_id = queued(hasty)
    draw(sessions, blobs, generation_id, b"image")
    assert hasty.post(f"{IMAGES}/{generation_id}/cancel").json()["status"] == "succeeded"


def test_a_deleted_request_is_gone_with_its_images_and_no_longer_counts(
    hasty: TestClient, sessions: Sessions, blobs: Blobs
) -> None:
    generation_id, waiting = queued(hasty), queued(hasty)
    draw(sessions, blobs, generation_id, b"twelve bytes")
    assert hasty.get("/v1/usage").json()["stored_bytes"] == 12
    for one in (generation_id, waiting):
        answer = hasty.delete(f"{IMAGES}/{one}")
        assert answer.json() == {"id": one, "object": "image.generation", "deleted": True}
        for method, path in (("GET", ""), ("GET", "/images/0"), ("POST", "/cancel"), ("DELETE", "")):
            answer = hasty.request(method, f"{IMAGES}/{one}{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "image_generation_not_found")
    assert hasty.get("/v1/usage").json()["stored_bytes"] == 0
    with sessions.begin() as session:
        assert generation_leases.claim(session, waiting, worker="w", lease_seconds=60) is None


def test_requests_for_images_beyond_what_may_wait_are_refused(
    hasty: TestClient, sessions: Sessions, project: Tenant
) -> None:
    with sessions.begin() as session:
        projects.set_limits(session, project.name, own={"queued_images": 1}, dropped=())
    first = queued(hasty)
    answer = hasty.post(IMAGES, json=REQUESTED | {"seed": 8})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "quota_exceeded")
    assert "queued requests for images is 1; 1 are used" in answer.json()["error"]["message"]
    quota = hasty.get("/v1/usage").json()["quotas"]["queued_images"]
    assert quota == {"limit": 1, "used": 1, "left": 0}
    hasty.delete(f"{IMAGES}/{first}")
    queued(hasty, seed=9)
