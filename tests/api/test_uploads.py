"""Uploads in parts: begin, add, resume, complete, cancel."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from store.blobs import upload_parts
from store.database import Sessions
from store.files import uploads
from store.files.uploads import PART_BYTES
from store.settings import Settings
from tests import servers
from tests.api.serving import MAX_UPLOAD
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
CONTENT = bytes(range(256)) * 10
HALVES = (CONTENT[:1000], CONTENT[1000:])


def begin(client: TestClient, size: int = len(CONTENT), **others: Any) -> str:
    requested = {"filename": "pairs.zip", "bytes": size, "mime_type": "application/zip", "purpose": "fine-tune"}
    answer = client.post("/v1/uploads", json=requested | others)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def add(client: TestClient, upload_id: str, content: bytes, **fields: str) -> httpx2.Response:
    return client.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("upload", content)}, data=fields)


def part_id(client: TestClient, upload_id: str, content: bytes) -> str:
    answer = add(client, upload_id, content)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def complete(client: TestClient, upload_id: str, part_ids: list[str], **sums: str) -> httpx2.Response:
    return client.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": part_ids} | sums)


def field_error(answer: httpx2.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["code"]


def remaining_files(settings: Settings, upload_id: str) -> list[Path]:
    """What lies on the disk of an upload, temporary files included."""
    stored = (settings.home / "blobs" / "uploads" / upload_id).parent.glob(f"{upload_id}*/**")
    return [*settings.upload_directory.iterdir(), *stored]


def status(client: TestClient, upload_id: str) -> str:
    return str(client.get(f"/v1/uploads/{upload_id}").json()["status"])


def test_parts_in_any_order_become_the_file(client: TestClient, settings: Settings) -> None:
    upload_id = begin(client, filename="../p\r\nairs.zip")
    second, first = part_id(client, upload_id, HALVES[1]), part_id(client, upload_id, HALVES[0])
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    answer = complete(client, upload_id, [first, second], md5=md5.upper(), sha256=sha256).json()
    assert (answer["id"], answer["object"], answer["status"]) == (upload_id, "upload", "completed")
    file = answer["file"]
    expected = {"filename": "pairs.zip", "bytes": 2560, "purpose": "fine-tune", "status": "uploaded", "sha256": sha256}
    assert {name: file[name] for name in expected} == expected
    assert client.get(f"/v1/files/{file['id']}/content").content == CONTENT
    assert client.get(f"/v1/uploads/{upload_id}").json() == answer
    assert remaining_files(settings, upload_id) == []
    with servers.broker_client(settings.required_broker_url) as broker:
        assert broker.llen("intake") == 1


def test_what_was_decided_about_doubtful_rows_becomes_the_files(client: TestClient, sessions: Sessions) -> None:
    upload_id = begin(client, ties="both", invalid_rows="drop")
    parts = [part_id(client, upload_id, half) for half in HALVES]
    file_id = complete(client, upload_id, parts).json()["file"]["id"]
    with sessions() as session:
        policy = session.scalar(text("SELECT policy FROM files WHERE id = :id"), {"id": file_id})
    assert policy == {"ties": "both", "invalid_rows": "drop"}


def test_an_interrupted_client_sees_what_has_arrived_and_sends_the_rest(client: TestClient) -> None:
    upload_id = begin(client)
    sent = add(client, upload_id, HALVES[0]).json()
    assert (sent["object"], sent["upload_id"]) == ("upload.part", upload_id)
    upload = client.get(f"/v1/uploads/{upload_id}").json()
    assert (upload["status"], upload["bytes"], upload["file"]) == ("pending", 2560, None)
    assert upload["expires_at"] - upload["created_at"] == 24 * 3600
    listed = client.get(f"/v1/uploads/{upload_id}/parts").json()
    assert (listed["data"], listed["has_more"], listed["last_id"]) == ([sent], False, sent["id"])
    assert (sent["bytes"], sent["sha256"]) == (1000, hashlib.sha256(HALVES[0]).hexdigest())
    rest = part_id(client, upload_id, HALVES[1])
    assert complete(client, upload_id, [listed["data"][0]["id"], rest]).json()["file"]["bytes"] == 2560


def test_several_parts_come_at_once(client: TestClient) -> None:
    content = [bytes([number]) * 100 for number in range(20)]
    upload_id = begin(client, 2000)
    with ThreadPoolExecutor(8) as pool:
        part_ids = list(pool.map(lambda part: part_id(client, upload_id, part), content))
    file = complete(client, upload_id, part_ids).json()["file"]
    assert client.get(f"/v1/files/{file['id']}/content").content == b"".join(content)


def test_a_part_that_came_twice_is_used_once(client: TestClient) -> None:
    upload_id = begin(client)
    ids = [part_id(client, upload_id, content) for content in (HALVES[0], HALVES[0], HALVES[1])]
    file = complete(client, upload_id, ids[1:]).json()["file"]
    assert client.get(f"/v1/files/{file['id']}/content").content == CONTENT


def test_completing_again_returns_the_same_file_even_with_other_words(client: TestClient) -> None:
    upload_id = begin(client)
    parts = [part_id(client, upload_id, half) for half in HALVES]
    first = complete(client, upload_id, parts).json()
    assert complete(client, upload_id, parts).json() == first
    assert complete(client, upload_id, []).json() == first
    assert len(client.get("/v1/files").json()["data"]) == 1


def test_completions_at_once_make_one_file(client: TestClient, settings: Settings) -> None:
    for made in range(1, 6):
        upload_id = begin(client)
        parts = [part_id(client, upload_id, half) for half in HALVES]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _, i=upload_id, p=parts: complete(client, i, p), range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["file"]["id"] for answer in answers}) == 1
        assert len(client.get("/v1/files").json()["data"]) == made
        assert remaining_files(settings, upload_id) == []


def test_completion_and_cancellation_at_once_have_one_outcome(client: TestClient, settings: Settings) -> None:
    for _ in range(10):
        before = len(client.get("/v1/files").json()["data"])
        upload_id = begin(client)
        parts = [part_id(client, upload_id, half) for half in HALVES]
        with ThreadPoolExecutor(2) as pool:
            completion = pool.submit(complete, client, upload_id, parts)
            cancellation = pool.submit(client.post, f"/v1/uploads/{upload_id}/cancel")
            codes = (completion.result().status_code, cancellation.result().status_code)
        end = status(client, upload_id)
        assert codes == {"completed": (200, 409), "cancelled": (409, 200)}[end]
        assert len(client.get("/v1/files").json()["data"]) == before + (end == "completed")
        assert remaining_files(settings, upload_id) == []


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_a_wrong_checksum_is_refused_and_the_upload_stays_as_it_was(
    client: TestClient, settings: Settings, name: str
) -> None:
    upload_id = begin(client)
    parts = [part_id(client, upload_id, half) for half in HALVES]
    wrong = {name: "0" * (32 if name == "md5" else 64)}
    assert field_error(complete(client, upload_id, parts, **wrong)) == (400, name, "checksum_mismatch")
    assert status(client, upload_id) == "pending"
    assert list(settings.upload_directory.iterdir()) == []
    assert client.get("/v1/files").json()["data"] == []
    assert complete(client, upload_id, parts).status_code == 200


def test_a_part_with_a_wrong_checksum_is_refused(client: TestClient, settings: Settings) -> None:
    upload_id = begin(client)
    right = hashlib.sha256(HALVES[0]).hexdigest()
    assert add(client, upload_id, HALVES[0], sha256=right).status_code == 200
    assert field_error(add(client, upload_id, HALVES[1], sha256=right)) == (400, "sha256", "checksum_mismatch")
    assert len(client.get(f"/v1/uploads/{upload_id}/parts").json()["data"]) == 1
    assert list(settings.upload_directory.iterdir()) == []


def test_parts_that_are_not_the_uploads_own_are_all_named(client: TestClient) -> None:
    upload_id, other = begin(client), begin(client)
    mine, foreign = part_id(client, upload_id, HALVES[0]), part_id(client, other, HALVES[1])
    answer = complete(client, upload_id, [mine, foreign, "part-none"])
    assert answer.status_code == 400
    field_errors = {field_error["param"]: field_error["code"] for field_error in answer.json()["error"]["errors"]}
    assert field_errors == {"part_ids.1": "not_found", "part_ids.2": "not_found"}
    assert field_error(complete(client, upload_id, [mine, mine])) == (400, "part_ids", "invalid_value")
    assert status(client, upload_id) == "pending"


def test_parts_must_come_to_the_declared_size(client: TestClient) -> None:
    upload_id = begin(client)
    first, second = (part_id(client, upload_id, half) for half in HALVES)
    answer = complete(client, upload_id, [first])
    assert field_error(answer) == (400, "part_ids", "wrong_size")
    assert "1000 bytes" in answer.json()["error"]["message"]
    assert "2560" in answer.json()["error"]["message"]
    assert complete(client, upload_id, [first, second]).status_code == 200


def test_every_fault_of_a_declaration_is_reported_at_once(client: TestClient) -> None:
    requested = {"bytes": 0, "mime_type": "application/zip", "purpose": "assistants", "expires_after": {}}
    answer = client.post("/v1/uploads", json=requested)
    field_errors = {field_error["param"]: field_error["code"] for field_error in answer.json()["error"]["errors"]}
    assert field_errors == {
        "filename": "missing_field",
        "bytes": "invalid_value",
        "purpose": "invalid_value",
        "expires_after": "unknown_field",
    }


def test_more_than_may_be_uploaded_is_refused_when_it_is_declared(client: TestClient) -> None:
    begin(client, MAX_UPLOAD)
    requested = {"filename": "a", "bytes": MAX_UPLOAD + 1, "mime_type": "application/zip", "purpose": "fine-tune"}
    assert field_error(client.post("/v1/uploads", json=requested)) == (400, "bytes", "invalid_value")


def test_a_part_needs_data_and_knows_no_other_field(client: TestClient) -> None:
    upload_id = begin(client)
    answer = client.post(f"/v1/uploads/{upload_id}/parts", files={"file": ("a", b"x")})
    field_errors = {field_error["param"]: field_error["code"] for field_error in answer.json()["error"]["errors"]}
    assert field_errors == {"file": "unknown_field", "data": "missing_field"}
    assert field_error(add(client, upload_id, b"")) == (400, "data", "invalid_value")
    json_body = client.post(f"/v1/uploads/{upload_id}/parts", json={})
    assert (json_body.status_code, json_body.json()["error"]["code"]) == (400, "invalid_form")


def test_a_part_of_64_mib_passes_and_one_byte_more_does_not(client: TestClient, settings: Settings) -> None:
    upload_id = begin(client)
    part = bytes(PART_BYTES)
    assert add(client, upload_id, part).status_code == 200
    assert add(client, begin(client), part + b"x").status_code == 413
    assert add(client, upload_id, part).status_code == 409  # no upload needs so many bytes: refused unread
    assert list(settings.upload_directory.iterdir()) == []
    assert len(client.get(f"/v1/uploads/{upload_id}/parts").json()["data"]) == 1


def test_a_cancelled_upload_leaves_nothing_and_takes_nothing_more(client: TestClient, settings: Settings) -> None:
    upload_id = begin(client)
    part = part_id(client, upload_id, HALVES[0])
    cancelled = client.post(f"/v1/uploads/{upload_id}/cancel").json()
    assert (cancelled["status"], cancelled["file"]) == ("cancelled", None)
    assert remaining_files(settings, upload_id) == []
    assert client.post(f"/v1/uploads/{upload_id}/cancel").json() == cancelled
    for answer in (add(client, upload_id, HALVES[1]), complete(client, upload_id, [part])):
        assert field_error(answer) == (409, "upload_id", "invalid_upload_state")
        assert answer.headers["x-should-retry"] == "false"
    assert remaining_files(settings, upload_id) == []


def test_a_part_whose_upload_is_cancelled_while_it_is_stored_leaves_nothing(
    client: TestClient, settings: Settings, sessions: Sessions, project: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = begin(client)
    store_part = upload_parts.save

    def store_and_cancel(*given: Any) -> None:
        store_part(*given)
        with sessions.begin() as session:
            uploads.cancel(session, project.id, upload_id)

    monkeypatch.setattr(upload_parts, "save", store_and_cancel)
    assert field_error(add(client, upload_id, CONTENT)) == (409, "upload_id", "invalid_upload_state")
    assert remaining_files(settings, upload_id) == []


def test_a_part_beyond_the_most_that_an_upload_may_have_is_refused_and_its_bytes_go(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_PARTS", 1)
    upload_id = begin(client)
    part_id(client, upload_id, HALVES[0])
    refused = add(client, upload_id, HALVES[1])
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "too_many_parts")
    parts = [path for path in (settings.home / "blobs" / "uploads" / upload_id).rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in parts] == [HALVES[0]]


def test_a_completed_upload_is_not_cancelled_nor_added_to(client: TestClient, settings: Settings) -> None:
    upload_id = begin(client)
    file = complete(client, upload_id, [part_id(client, upload_id, CONTENT)]).json()["file"]
    for answer in (client.post(f"/v1/uploads/{upload_id}/cancel"), add(client, upload_id, CONTENT)):
        assert field_error(answer) == (409, "upload_id", "invalid_upload_state")
    assert client.get(f"/v1/files/{file['id']}/content").content == CONTENT
    assert remaining_files(settings, upload_id) == []


def test_an_upload_whose_time_is_over_is_expired_at_once(client: TestClient, sessions: Sessions) -> None:
    upload_id = begin(client)
    part = part_id(client, upload_id, CONTENT)
    with sessions.begin() as session:
        session.execute(text("UPDATE uploads SET expires_at = now() WHERE id = :id"), {"id": upload_id})
    assert status(client, upload_id) == "expired"
    for answer in (
        add(client, upload_id, CONTENT),
        complete(client, upload_id, [part]),
        client.post(f"/v1/uploads/{upload_id}/cancel"),
    ):
        assert field_error(answer) == (409, "upload_id", "invalid_upload_state")


def test_the_file_of_an_upload_may_be_deleted(client: TestClient) -> None:
    upload_id = begin(client)
    done = complete(client, upload_id, [part_id(client, upload_id, CONTENT)]).json()
    client.delete(f"/v1/files/{done['file']['id']}")
    upload = client.get(f"/v1/uploads/{upload_id}").json()
    assert (upload["status"], upload["file"]) == ("completed", None)


def test_another_projects_upload_takes_no_part_of_its_body(
    client: TestClient, settings: Settings, other_project: Tenant
) -> None:
    upload_id = begin(client)
    theirs = {"authorization": f"Bearer {other_project.api_key}"}
    answer = client.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("a", CONTENT)}, headers=theirs)
    assert field_error(answer) == (404, "upload_id", "upload_not_found")
    assert client.get(f"/v1/uploads/{upload_id}/parts").json()["data"] == []
    assert remaining_files(settings, upload_id) == []
