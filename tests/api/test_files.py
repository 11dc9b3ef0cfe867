"""Files: upload, list, delete, download."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from intake import Finding, Report
from intake.review import Review
from store.database import Sessions
from store.files import file_leases
from store.settings import Settings
from tests import servers
from tests.api.conftest import add_file, finish_intake, open_client
from tests.api.serving import MAX_UPLOAD
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
CONTENT = bytes(range(256)) * 10
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def upload(client: TestClient, content: bytes = CONTENT, name: str = "pairs.zip") -> dict[str, Any]:
    answer = client.post("/v1/files", files={"file": (name, content)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def published(sessions: Sessions, file_id: str) -> bool:
    with sessions() as session:
        found = session.execute(text("SELECT published_at IS NOT NULL FROM files WHERE id = :id"), {"id": file_id})
        return bool(found.scalar_one())


def field_errors(answer: Any) -> dict[str, str]:
    assert answer.status_code == 400, answer.text
    return {field_error["param"]: field_error["code"] for field_error in answer.json()["error"]["errors"]}


def test_an_upload_is_stored_announced_and_leaves_no_temporary_file(
    client: TestClient, settings: Settings, sessions: Sessions
) -> None:
    file = upload(client)
    assert file["id"].startswith("file-")
    assert isinstance(file["created_at"], int)
    expected = {"object": "file", "bytes": 2560, "filename": "pairs.zip", "purpose": "fine-tune", "status": "uploaded"}
    assert {name: file[name] for name in expected} == expected
    assert (file["status_details"], file["expires_at"]) == (None, None)
    assert client.get(f"/v1/files/{file['id']}").json() == file
    assert list(settings.upload_directory.iterdir()) == []
    assert published(sessions, file["id"])
    with servers.broker_client(settings.required_broker_url) as broker:
        assert broker.llen("intake") == 1


def test_an_upload_succeeds_while_the_broker_is_down_and_stays_unannounced(
    settings: Settings, sessions: Sessions, api_key: str, tmp_path: Path
) -> None:
    gone = settings.model_copy(update={"broker_url": f"redis+socket://{tmp_path}/gone.sock"})
    with open_client(gone) as client:
        client.headers["authorization"] = f"Bearer {api_key}"
        assert not published(sessions, upload(client)["id"])


def test_every_fault_of_a_form_is_reported_at_once(client: TestClient) -> None:
    answer = client.post("/v1/files", files={"other": ("a", b"x")}, data={"purpose": "assistants"})
    assert field_errors(answer) == {"other": "unknown_field", "file": "missing_field", "purpose": "invalid_value"}


def test_what_the_uploader_decided_about_doubtful_rows_is_stored(client: TestClient, sessions: Sessions) -> None:
    data = {"purpose": "fine-tune", "ties": "both", "strict": "true", "prompt": " a photo of zibu "}
    file_id = client.post("/v1/files", files={"file": ("a.zip", CONTENT)}, data=data).json()["id"]
    plain = upload(client)["id"]
    with sessions() as session:
        rows = {row.id: row.policy for row in session.execute(text("SELECT id, policy FROM files"))}
    assert (rows[file_id], rows[plain]) == ({"ties": "both", "strict": True, "prompt": "a photo of zibu"}, None)


def test_a_wrong_decision_is_refused_with_every_other_fault(client: TestClient) -> None:
    data = {"purpose": "assistants", "ties": "flip", "strict": "perhaps", "invalid_rows": "", "prompt": "a\0b"}
    answer = client.post("/v1/files", files={"file": ("a.zip", CONTENT)}, data=data)
    assert field_errors(answer).keys() == {"purpose", "ties", "strict", "invalid_rows", "prompt"}


def test_progress_is_shown_while_a_file_is_read(client: TestClient, sessions: Sessions) -> None:
    file_id = upload(client)["id"]
    progress = {"format": "parquet/pick-a-pic", "rows": 300, "kept": 290, "total": 5000, "stored": 0, "images": None}
    with sessions.begin() as session:
        owned = file_leases.claim(session, file_id, lease_seconds=60)
        assert owned is not None
        file_leases.note_progress(session, owned, progress)
    assert client.get(f"/v1/files/{file_id}").json()["progress"] == progress
    with sessions.begin() as session:
        file_leases.finish(session, owned, status="error", details="x")
    assert client.get(f"/v1/files/{file_id}").json()["progress"] is None


def test_a_form_without_purpose_or_with_two_files_is_refused(client: TestClient, settings: Settings) -> None:
    two = client.post("/v1/files", files=[("file", ("a", b"x")), ("file", ("b", b"y"))])
    assert field_errors(two) == {"file": "invalid_value", "purpose": "missing_field"}
    assert list(settings.upload_directory.iterdir()) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"not a form"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf a fi',
        ),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 20),
    ],
)
def test_an_unreadable_or_unfinished_form_is_refused(
    client: TestClient, settings: Settings, content_type: str, body: bytes
) -> None:
    answer = client.post("/v1/files", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")
    assert list(settings.upload_directory.iterdir()) == []
    assert client.get("/v1/files").json()["data"] == []


def test_a_file_name_is_never_a_path_nor_a_header(client: TestClient) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file"; filename="../../etc/p\xc3\xa4irs\x01.zip"\r\n\r\nx\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    file = client.post("/v1/files", content=form, headers=headers).json()
    assert file["filename"] == "päirs.zip"
    disposition = client.get(f"/v1/files/{file['id']}/content").headers["content-disposition"]
    assert disposition == "attachment; filename=\"p_irs.zip\"; filename*=UTF-8''p%C3%A4irs.zip"


def test_an_upload_at_the_cap_passes_and_one_over_cap_and_form_is_refused(client: TestClient) -> None:
    assert upload(client, b"x" * MAX_UPLOAD)["bytes"] == MAX_UPLOAD
    over = client.post("/v1/files", files={"file": ("a", b"x" * (MAX_UPLOAD + 65537))}, data={"purpose": "fine-tune"})
    assert (over.status_code, over.json()["error"]["code"]) == (413, "request_too_large")


def test_lists_page_in_both_orders_and_filter_by_purpose(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    ids = [add_file(sessions, project.id).id for _ in range(3)]
    result = add_file(sessions, project.id, purpose="fine-tune-results").id
    page = client.get("/v1/files", params={"limit": 2}).json()
    assert page["object"] == "list"
    assert [file["id"] for file in page["data"]] == [result, ids[2]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (result, ids[2], True)
    rest = client.get("/v1/files", params={"limit": 2, "after": ids[2]}).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([ids[1], ids[0]], False)
    oldest = client.get("/v1/files", params={"order": "asc", "purpose": "fine-tune"}).json()
    assert [file["id"] for file in oldest["data"]] == ids
    empty = client.get("/v1/files", params={"purpose": "vision"}).json()
    assert empty == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


def test_a_refused_file_says_why(client: TestClient, sessions: Sessions) -> None:
    file = upload(client)
    finish_intake(sessions, file["id"], status="error", details="row 3: a.png is missing")
    read = client.get(f"/v1/files/{file['id']}").json()
    assert (read["status"], read["status_details"]) == ("error", "row 3: a.png is missing")


def test_a_deleted_file_is_gone_from_every_route(client: TestClient) -> None:
    file = upload(client)
    deleted = client.delete(f"/v1/files/{file['id']}").json()
    assert deleted == {"id": file["id"], "object": "file", "deleted": True}
    for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/v1/files/{file['id']}").status_code == 404
    assert client.get("/v1/files").json()["data"] == []


def test_a_file_that_a_live_job_needs_is_not_deleted(client: TestClient, sessions: Sessions, project: Tenant) -> None:
    file = add_file(sessions, project.id)
    job = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file.id}).json()
    refused = client.delete(f"/v1/files/{file.id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "file_in_use")
    assert job["id"] in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    client.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")
    assert client.delete(f"/v1/files/{file.id}").status_code == 200


@pytest.mark.parametrize(
    ("requested", "status", "start", "end"),
    [
        ({}, 200, 0, 2560),
        ({"range": "bytes=0-0"}, 206, 0, 1),
        ({"range": "bytes=100-299"}, 206, 100, 300),
        ({"range": "bytes=2500-"}, 206, 2500, 2560),
        ({"range": "bytes=2500-9999"}, 206, 2500, 2560),
        ({"range": "bytes=-10"}, 206, 2550, 2560),
        ({"range": "bytes=0-1,5-6"}, 200, 0, 2560),
        ({"range": "bytes=5-1"}, 200, 0, 2560),
        ({"range": "lines=1-2"}, 200, 0, 2560),
        ({"range": "bytes=1-2", "if-range": ETAG}, 206, 1, 3),
        ({"range": "bytes=1-2", "if-range": '"other"'}, 200, 0, 2560),
    ],
)
def test_a_download_returns_what_the_range_requests(
    client: TestClient, requested: dict[str, str], status: int, start: int, end: int
) -> None:
    answer = client.get(f"/v1/files/{upload(client)['id']}/content", headers=requested)
    assert (answer.status_code, answer.content) == (status, CONTENT[start:end])
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers.get("content-range") == (f"bytes {start}-{end - 1}/2560" if status == 206 else None)
    assert answer.headers["etag"] == ETAG
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("requested", ["bytes=2560-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_beyond_the_end_is_416_with_the_size(client: TestClient, requested: str) -> None:
    answer = client.get(f"/v1/files/{upload(client)['id']}/content", headers={"range": requested})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2560")
    assert answer.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(("tag", "status"), [(ETAG, 304), (f'"a", W/{ETAG}', 304), ("*", 304), ('"a"', 200)])
def test_content_that_the_client_has_is_not_sent_again(client: TestClient, tag: str, status: int) -> None:
    answer = client.get(f"/v1/files/{upload(client)['id']}/content", headers={"if-none-match": tag})
    assert (answer.status_code, answer.headers["etag"]) == (status, ETAG)
    assert answer.content == (CONTENT if status == 200 else b"")


def test_head_gives_the_headers_of_the_whole_download_without_bytes(client: TestClient) -> None:
    path = f"/v1/files/{upload(client)['id']}/content"
    answer = client.head(path, headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "2560"
    assert answer.headers["etag"] == ETAG


def test_a_blob_that_is_gone_is_a_server_error_without_inner_names(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    answer = client.get(f"/v1/files/{add_file(sessions, project.id).id}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "file_content_missing")
    assert "0" * 64 not in answer.text


def test_a_read_files_report_is_sent_as_json_and_in_words(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    file = add_file(sessions, project.id, status="uploaded")
    answer = client.get(f"/v1/files/{file.id}/report")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_report")
    finding = Finding("pair_repeated", "warning", "metadata.jsonl row 2: the pair is the one of row 1 again.", None, 2)
    reported = Report("archive/metadata.jsonl", 2, 2, {}, Review("metadata.jsonl").figures(), (finding,))
    with sessions.begin() as session:
        owned = file_leases.claim(session, file.id, lease_seconds=60)
        assert owned is not None
        file_leases.finish(session, owned, status="processed", details=None, report=reported.as_json())
    found = client.get(f"/v1/files/{file.id}/report").json()
    assert (found["rows"], found["findings"][0]["code"], found["findings"][0]["row"]) == (2, "pair_repeated", 2)
    words = client.get(f"/v1/files/{file.id}/report", params={"format": "text"})
    assert words.headers["content-type"].startswith("text/plain")
    assert words.text == reported.in_words()
