"""Quotas, rates and the project's use, as a client meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.caches.principals import CACHE_SECONDS
from api.errors.rate_headers import rate_headers
from intake import PreparedPair
from store import erasure
from store.blobs.blobs import Blobs, StoredBlob
from store.database import Sessions
from store.files import file_leases, files
from store.files.files import NewFile
from store.jobs import job_leases
from store.settings import Settings
from store.tenants import projects
from tests.api import dataset_steps, open_request
from tests.api.conftest import add_file, open_client
from tests.api.job_steps import JOBS, claim, create
from tests.api.polling import until
from tests.api.serving import Live
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
PURPOSE = {"purpose": "fine-tune"}


def set_limits(sessions: Sessions, project: Tenant, **own: int | None) -> None:
    with sessions.begin() as session:
        projects.set_limits(session, project.name, own=own, dropped=())


def upload(client: TestClient, content: bytes, **headers: str) -> Any:
    return client.post("/v1/files", data=PURPOSE, files={"file": ("a.zip", content)}, headers=headers)


def begin(client: TestClient, size: int) -> Any:
    body = {"filename": "a", "bytes": size, "mime_type": "application/zip", **PURPOSE}
    return client.post("/v1/uploads", json=body)


def refusal(answer: Any) -> str:
    """The message of a quota's refusal."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (403, "quota_exceeded", "invalid_request_error")
    assert error["message"].endswith(", or ask the operator for a larger quota.")
    return str(error["message"])


def test_a_file_beyond_the_quota_is_refused_and_nothing_of_it_is_stored(
    client: TestClient, sessions: Sessions, project: Tenant, settings: Settings
) -> None:
    set_limits(sessions, project, stored_bytes=100)
    first = upload(client, b"a" * 60)
    assert first.status_code == 200
    before = len(list(Path(settings.effective_blob_url.removeprefix("file://")).rglob("*")))
    message = refusal(upload(client, project.id.encode() * 3))
    assert message.startswith("The project's quota of stored bytes is 100; 60 are used, and this needs ")
    assert "Delete files" in message
    assert len(list(Path(settings.effective_blob_url.removeprefix("file://")).rglob("*"))) == before
    assert [file["id"] for file in client.get("/v1/files").json()["data"]] == [first.json()["id"]]
    assert client.delete(f"/v1/files/{first.json()['id']}").status_code == 200
    assert upload(client, b"c" * 100).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "mine"}], ids=["without a key", "with a key"])
def test_of_two_uploads_that_fit_each_but_not_both_the_one_stored_later_is_refused(
    client: TestClient,
    sessions: Sessions,
    project: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    """The other one's row is committed while this one's bytes are on their way to the blob store."""
    set_limits(sessions, project, stored_bytes=100)
    take_file = Blobs.take_file

    def take_file_while_another_commits(blobs: Blobs, path: Path, blob: StoredBlob) -> None:
        take_file(blobs, path, blob)
        with sessions.begin() as session:
            files.create(session, NewFile(project.id, "other.zip", "fine-tune", 60, "0" * 64), status="processed")

    with monkeypatch.context() as patched:
        patched.setattr(Blobs, "take_file", take_file_while_another_commits)
        refusal(upload(client, b"a" * 60, **headers))
    assert [file["filename"] for file in client.get("/v1/files").json()["data"]] == ["other.zip"]


def test_a_repeated_request_is_answered_as_before_although_the_quota_is_used_up(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    set_limits(sessions, project, stored_bytes=60)
    first = upload(client, b"a" * 60, **{"idempotency-key": "one"})
    again = upload(client, b"a" * 60, **{"idempotency-key": "one"})
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    refusal(upload(client, b"a" * 60, **{"idempotency-key": "two"}))


def test_a_file_beyond_the_quota_is_refused_before_its_body_is_read(live: Live) -> None:
    set_limits(live.sessions, live.tenant, stored_bytes=0)
    try:
        length = f"content-length: {200_000}"
        with open_request.request(live, "/v1/files", length, key=live.tenant.api_key) as connection:
            assert open_request.answer(connection) == (403, "quota_exceeded")
    finally:
        with live.sessions.begin() as session:
            projects.set_limits(session, live.tenant.name, own={}, dropped={"stored_bytes"})


def test_an_upload_that_was_begun_can_be_completed_in_the_space_that_it_reserved(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    set_limits(sessions, project, stored_bytes=100, uploads=1)
    assert "bytes is 100; 0 are used, and this needs 101 more" in refusal(begin(client, 101))
    begun = begin(client, 90).json()["id"]
    assert "uploads in flight is 1; 1 are used" in refusal(begin(client, 1))
    refusal(upload(client, b"a" * 11))
    part = client.post(f"/v1/uploads/{begun}/parts", files={"data": b"a" * 90}).json()["id"]
    completed = client.post(f"/v1/uploads/{begun}/complete", json={"part_ids": [part]})
    assert (completed.status_code, completed.json()["status"]) == (200, "completed")
    assert client.get("/v1/usage").json()["quotas"]["stored_bytes"] == {"limit": 100, "used": 90, "left": 10}
    refusal(begin(client, 11))
    assert begin(client, 10).status_code == 200


def test_a_pair_beyond_the_quota_is_refused_until_a_data_set_goes(
    client: TestClient, sessions: Sessions, project: Tenant, settings: Settings
) -> None:
    dataset = dataset_steps.create(client)["id"]
    dataset_steps.add(client, dataset, 1, 2)
    used = client.get("/v1/usage").json()["stored_bytes"]
    assert 2 * len(dataset_steps.image_file(1)) * 0.9 < used < 2 * len(dataset_steps.image_file(1)) * 1.1
    set_limits(sessions, project, stored_bytes=used + 10)
    blobs = Path(settings.effective_blob_url.removeprefix("file://"))
    before = len(list(blobs.rglob("*")))
    images: dict[str, Any] = {"chosen": dataset_steps.image_file(3), "rejected": dataset_steps.image_file(4)}
    assert f"stored bytes is {used + 10}; {used} are used" in refusal(dataset_steps.send(client, dataset, **images))
    assert len(list(blobs.rglob("*"))) == before
    keyed = {"idempotency-key": "pair"}
    refusal(dataset_steps.send(client, dataset, headers=keyed, **images))
    assert client.get(f"/v1/datasets/{dataset}").json()["pairs"] == 1
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 200
    assert client.get("/v1/usage").json()["stored_bytes"] == 0
    other = dataset_steps.create(client)["id"]
    first = dataset_steps.send(client, other, headers=keyed | {"idempotency-key": "again"}, **images)
    assert first.status_code == 200
    set_limits(sessions, project, stored_bytes=1)
    again = dataset_steps.send(client, other, headers=keyed | {"idempotency-key": "again"}, **images)
    assert again.json() == first.json()


def test_a_job_beyond_the_quota_is_refused_until_one_has_started(
    client: TestClient, sessions: Sessions, project: Tenant, file_id: str
) -> None:
    set_limits(sessions, project, queued_jobs=1)
    waiting = create(client, file_id)
    body = {"model": "tiny", "training_file": file_id}
    assert "quota of queued jobs is 1; 1 are used" in refusal(client.post(JOBS, json=body))
    retried = {"x-stainless-retry-count": "1"}  # the same request again is no second job
    assert client.post(JOBS, json=body, headers=retried).json()["id"] == waiting["id"]
    assert client.post(JOBS, json=body | {"seed": -1}).status_code == 400  # what is wrong comes first
    claim(sessions, waiting["id"])
    assert client.post(JOBS, json=body).status_code == 200


def test_usage_reports_what_is_stored_run_and_left(
    client: TestClient, sessions: Sessions, project: Tenant, settings: Settings
) -> None:
    fresh = client.get("/v1/usage").json()
    assert (fresh["stored_bytes"], fresh["files"], fresh["training_seconds"]) == (0, 0, 0)
    assert fresh["quotas"]["queued_jobs"]["limit"] == settings.quota_queued_jobs
    assert fresh["quotas"]["running_jobs"] == {"limit": None, "used": 0, "left": None}
    set_limits(sessions, project, stored_bytes=10, running_jobs=3, uploads=0)
    file = add_file(sessions, project.id)  # of 3 bytes
    done, running, waiting = (create(client, file.id)["id"] for _ in range(3))
    owned = claim(sessions, done)
    claim(sessions, running)
    with sessions.begin() as session:
        job_leases.succeed(session, owned, results=[NewFile(project.id, "a", "fine-tune-results", 9, "0" * 64)])
    client.post(f"{JOBS}/{waiting}/pause")
    found = client.get("/v1/usage").json()
    assert (found["object"], found["project_id"]) == ("usage", project.id)
    assert (found["stored_bytes"], found["files"], found["uploads"]) == (12, 2, 0)
    assert {state: count for state, count in found["jobs"].items() if count} == {
        "succeeded": 1,
        "running": 1,
        "paused": 1,
    }
    assert len(found["jobs"]) == 7
    assert found["training_seconds"] > 0
    assert found["quotas"] == {
        "stored_bytes": {"limit": 10, "used": 12, "left": 0},  # results are kept even so
        "queued_jobs": {"limit": settings.quota_queued_jobs, "used": 1, "left": (settings.quota_queued_jobs or 0) - 1},
        "running_jobs": {"limit": 3, "used": 1, "left": 2},
        "uploads": {"limit": 0, "used": 0, "left": 0},
        "queued_files": {"limit": settings.quota_queued_files, "used": 0, "left": settings.quota_queued_files},
        "running_files": {"limit": None, "used": 0, "left": None},
        "queued_images": {"limit": settings.quota_queued_images, "used": 0, "left": settings.quota_queued_images},
        "running_images": {"limit": None, "used": 0, "left": None},
        "pairs": {"limit": settings.quota_pairs, "used": 0, "left": settings.quota_pairs},
    }
    assert found["rate_limit"] == {"requests_per_minute": None, "burst": None}


# ------------------------------------------------------------------------------------------------------------ rates


@pytest.fixture
def limited(settings: Settings, broker_url: str, api_key: str) -> Iterator[TestClient]:
    """An API that lets a key send three requests at once, and one a minute from then on."""
    with open_client(settings.model_copy(update={"requests_per_minute": 1, "requests_burst": 3})) as client:
        client.headers["authorization"] = f"Bearer {api_key}"
        yield client


def test_a_key_that_sends_too_much_learns_when_to_retry(limited: TestClient) -> None:
    passed = [limited.get("/v1/models") for _ in range(3)]
    assert [answer.status_code for answer in passed] == [200] * 3
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in passed] == ["2", "1", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in passed} == {"3"}
    refused = limited.get("/v1/models")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (429, "rate_limit_exceeded")
    assert re.match(
        r"This API key may send 1 requests a minute, 3 of them at once; send .* again in \d+ s\.", error["message"]
    )
    assert 50 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"[23]m\d+s", refused.headers["x-ratelimit-reset-requests"])
    assert "x-should-retry" not in refused.headers
    assert "x-request-id" in refused.headers
    assert limited.get("/healthz").status_code == 200


def test_each_key_has_a_rate_of_its_own_and_a_wrong_one_none(limited: TestClient, other_project: Tenant) -> None:
    for _ in range(3):
        limited.get("/v1/models")
    theirs = {"authorization": f"Bearer {other_project.api_key}"}
    assert limited.get("/v1/models").status_code == 429
    assert limited.get("/v1/models", headers=theirs).headers["x-ratelimit-remaining-requests"] == "2"
    for _ in range(9):
        assert limited.get("/v1/models", headers={"authorization": "Bearer pt-wrong"}).status_code == 401


def test_a_refusal_of_another_kind_reports_the_rate_too(limited: TestClient) -> None:
    assert limited.get("/v1/files/file-none").headers["x-ratelimit-remaining-requests"] == "2"


def test_processes_share_the_rate(limited: TestClient, settings: Settings) -> None:
    with open_client(settings.model_copy(update={"requests_per_minute": 1, "requests_burst": 3})) as another:
        another.headers["authorization"] = limited.headers["authorization"]
        statuses = [client.get("/v1/models").status_code for client in (limited, another, limited, another, limited)]
    assert statuses == [200, 200, 200, 429, 429]


def test_a_projects_own_rate_comes_before_the_deployments(
    limited: TestClient, sessions: Sessions, project: Tenant
) -> None:
    set_limits(sessions, project, requests_per_minute=60, requests_burst=5)
    assert limited.get("/v1/models").headers["x-ratelimit-limit-requests"] == "5"
    assert limited.get("/v1/usage").json()["rate_limit"] == {"requests_per_minute": 60, "burst": 5}
    set_limits(sessions, project, requests_per_minute=None)
    until(lambda: "x-ratelimit-limit-requests" not in limited.get("/v1/models").headers, seconds=2 * CACHE_SECONDS)


def test_requests_pass_without_a_broker(settings: Settings, api_key: str, tmp_path: Path) -> None:
    gone = {"broker_url": f"redis+socket://{tmp_path}/gone", "requests_per_minute": 1, "requests_burst": 1}
    with open_client(settings.model_copy(update=gone)) as client:
        client.headers["authorization"] = f"Bearer {api_key}"
        assert [client.get("/v1/models").status_code for _ in range(5)] == [200] * 5


def test_the_time_until_the_bucket_is_full_is_written_as_openais() -> None:
    written = [
        rate_headers(1, 0, seconds)["x-ratelimit-reset-requests"] for seconds in (0.0374, 1, 1.25, 59.9, 360, 3725)
    ]
    assert written == ["37ms", "1s", "1.25s", "59.9s", "6m0s", "62m5s"]


def test_files_that_wait_to_be_read_have_a_quota_in_which_uploads_count_from_their_beginning(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    set_limits(sessions, project, queued_files=2)
    first = upload(client, b"a").json()["id"]
    pending = begin(client, 5).json()["id"]
    assert "files that wait to be read" in refusal(upload(client, b"b"))
    assert "files that wait to be read" in refusal(begin(client, 5))
    assert client.get("/v1/usage").json()["quotas"]["queued_files"] == {"limit": 2, "used": 2, "left": 0}
    client.post(f"/v1/uploads/{pending}/cancel")
    second = upload(client, b"b").json()["id"]
    with sessions.begin() as session:
        lease = file_leases.claim(session, first, lease_seconds=60)
        assert lease is not None
        file_leases.finish(session, lease, status="error", details="d")
    assert upload(client, b"c").status_code == 200
    client.delete(f"/v1/files/{second}")
    assert upload(client, b"d").status_code == 200


def test_pairs_count_until_their_rows_are_erased(
    client: TestClient, sessions: Sessions, project: Tenant, blobs: Blobs
) -> None:
    set_limits(sessions, project, pairs=5)
    rows = [PreparedPair(row, "a fox", "a" * 64, None) for row in (1, 2, 3)]
    file_id = dataset_steps.processed_file(sessions, blobs, project.id, *rows)
    dataset_id = dataset_steps.create(client, file_ids=[file_id])["id"]
    pair = dataset_steps.add(client, dataset_id, 1)
    client.delete(f"/v1/datasets/{dataset_id}/pairs/{pair['id']}")  # its row stays for the revision before
    path = f"/v1/datasets/{dataset_id}/files"
    assert "4 are used, and this needs 3" in refusal(client.post(path, json={"file_id": file_id}))
    assert "pairs in datasets" in refusal(client.post("/v1/datasets", json={"name": "d", "file_ids": [file_id]}))
    dataset_steps.add(client, dataset_id, 2)
    image = dataset_steps.image_file(3)
    refusal(dataset_steps.send(client, dataset_id, chosen=image))
    assert client.get("/v1/usage").json()["quotas"]["pairs"] == {"limit": 5, "used": 5, "left": 0}
    client.delete(f"/v1/datasets/{dataset_id}")
    refusal(client.post("/v1/datasets", json={"name": "d", "file_ids": [file_id]}))
    with sessions.begin() as session:
        session.execute(text("UPDATE datasets SET deleted_at = deleted_at - interval '2 days'"))
        for step in erasure.STEPS:
            step(session, 1.0)
    assert client.post("/v1/datasets", json={"name": "d", "file_ids": [file_id]}).status_code == 200


def test_what_the_service_makes_of_uploads_counts_as_stored(
    client: TestClient, sessions: Sessions, project: Tenant, file_id: str
) -> None:
    before = client.get("/v1/usage").json()["stored_bytes"]
    job_id = create(client, file_id)["id"]
    lease = claim(sessions, job_id)
    manifest = {"adapter": {"sha256": "1" * 64, "bytes": 700}, "state": {"sha256": "2" * 64, "bytes": 300}}
    unread = upload(client, b"a").json()["id"]
    with sessions.begin() as session:
        job_leases.add_checkpoint(session, lease, step=1, metrics={"valid_loss": 1.0}, manifest=manifest)
        job_leases.fail(session, lease, code="c", message="m")
        reading = file_leases.claim(session, unread, lease_seconds=60)
        assert reading is not None
        file_leases.finish(session, reading, status="processed", details=None, images_bytes=5000)
    assert client.get("/v1/usage").json()["stored_bytes"] == before + 1000 + 5001
    client.delete(f"{JOBS}/{job_id}")
    client.delete(f"/v1/files/{unread}")
    assert client.get("/v1/usage").json()["stored_bytes"] == before
