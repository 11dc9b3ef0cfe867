"""OpenAI's error shape on everything that goes wrong, request ids and headers on every answer."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.main import create_app
from store.settings import Settings
from tests.api.polling import until
from tests.api.serving import Live
from tests.conftest import Tenant

pytestmark = pytest.mark.integration


def test_an_unknown_route_and_method_have_the_shape(client: TestClient) -> None:
    missing = client.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"] == {
        "message": "There is no route /v1/nothing; /openapi.json lists all routes.",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }
    wrong = client.put("/v1/models")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    assert wrong.json()["error"]["code"] == "method_not_allowed"
    several = client.put("/v1/files/file-1")
    assert (several.status_code, several.headers["allow"]) == (405, "DELETE, GET")
    assert several.json()["error"]["message"] == "/v1/files/file-1 does not support PUT; use DELETE, GET."


def test_query_faults_come_together_with_what_was_given(client: TestClient) -> None:
    error = client.get("/v1/files", params={"limit": "0", "order": "up"}).json()["error"]
    assert [field_error["param"] for field_error in error["errors"]] == ["limit", "order"]
    assert "given: '0'" in error["message"]
    assert "'asc' or 'desc'" in error["message"]


@pytest.mark.parametrize("limit", ["0", "101", "x", "1.5"])
def test_a_limit_out_of_range_is_a_400(client: TestClient, limit: str) -> None:
    assert client.get("/v1/fine_tuning/jobs", params={"limit": limit}).status_code == 400


@pytest.mark.parametrize("path", ["/v1/files/a%00b", "/v1/files?after=%00", "/v1/models/%00"])
def test_a_nul_in_the_url_is_a_400(client: TestClient, path: str) -> None:
    assert client.get(path).json()["error"]["code"] == "invalid_url"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/models/org/name", "DELETE, GET"),
        ("/openapi.json", "GET"),
        ("/v1/files/file-1/content", "GET, HEAD"),
        ("/v1/datasets/ds-1/pairs/pair-1/images/chosen", "GET"),
    ],
)
def test_what_a_path_takes_is_named_whatever_its_parameters_hold(client: TestClient, path: str, allowed: str) -> None:
    answer = client.patch(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["error"]["message"] == f"{path} does not support PATCH; use {allowed}."


@pytest.mark.parametrize("path", ["/v1/files/", "/v1/fine_tuning/jobs/", "/healthz/", "/v1/files/file-1/"])
def test_a_slash_too_many_is_a_path_that_there_is_not(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


def test_a_request_without_a_key_learns_how_to_send_one(anonymous: TestClient) -> None:
    for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer "}):
        answer = anonymous.get("/v1/models", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "`Authorization: Bearer pt-...`" in answer.json()["error"]["message"]
    wrong = anonymous.get("/v1/models", headers={"authorization": "Bearer pt-wrong"}).json()["error"]["message"]
    assert wrong.startswith("This API key does not exist or was revoked")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/v1/files/x", "GET /v1/files lists"),
        ("/v1/fine_tuning/jobs/x", "GET /v1/fine_tuning/jobs lists"),
        ("/v1/fine_tuning/jobs/x/events", "GET /v1/fine_tuning/jobs lists"),
        ("/v1/models/a/b", "GET /v1/models lists"),
        ("/v1/uploads/x", "POST /v1/uploads creates one"),
        ("/v1/images/generations/x", "POST /v1/images/generations creates one"),
        ("/v1/datasets/x/pairs", "GET /v1/datasets lists"),
        ("/v1/datasets/DATASET/pairs/x", "GET /v1/datasets/DATASET/pairs lists"),
        ("/v1/datasets/DATASET/report?revision=9", "GET /v1/datasets/DATASET/revisions lists"),
        ("/v1/webhooks/x/deliveries", "GET /v1/webhooks lists"),
    ],
)
def test_an_id_of_nothing_is_answered_with_the_route_that_lists_ids(client: TestClient, path: str, where: str) -> None:
    dataset = client.post("/v1/datasets", json={"name": "a"}).json()["id"]
    answer = client.get(path.replace("DATASET", dataset))
    assert answer.status_code == 404
    assert where.replace("DATASET", dataset) in answer.json()["error"]["message"]


def test_an_id_of_nothing_in_a_body_is_answered_so_too(client: TestClient) -> None:
    dataset = client.post("/v1/datasets", json={"name": "a"}).json()["id"]
    requested = {"model": "tiny", "training_file": f"{dataset}@7", "validation_file": "file-0"}
    reported = client.post("/v1/fine_tuning/jobs", json=requested).json()["error"]["message"]
    assert f"GET /v1/datasets/{dataset}/revisions lists the existing ones." in reported
    assert "GET /v1/files lists the existing ones." in reported


def test_a_sane_request_id_stays_and_others_are_replaced(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "x" * 129, "a\tb", "<script>"):
        made = client.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert made.startswith("req-")
    assert client.get("/healthz").headers["x-request-id"] != client.get("/healthz").headers["x-request-id"]


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/nothing", "/openapi.json"])
def test_every_answer_carries_the_security_headers_and_no_cors(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"origin": "https://elsewhere.example"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert not any(name.startswith("access-control") for name in headers)


def _broken(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a secret detail")

    return app


def test_a_fault_of_ours_shows_no_detail_but_an_id_that_the_log_explains(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with TestClient(_broken(settings), raise_server_exceptions=False) as client:
        answer = client.get("/broken", headers={"x-request-id": "find-me"})
    assert answer.status_code == 500
    assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == ("server_error", "internal_error")
    assert "secret" not in answer.text
    assert (answer.headers["x-request-id"], answer.headers["x-content-type-options"]) == ("find-me", "nosniff")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    failed = next(line for line in lines if line["event"] == "request.failed")
    assert failed["request_id"] == "find-me"
    assert "a secret detail" in json.dumps(failed)


def test_each_request_is_one_json_line_without_its_key(
    settings: Settings, project: Tenant, capfd: pytest.CaptureFixture[str]
) -> None:
    with TestClient(create_app(settings)) as client:
        client.get("/v1/models?a=b", headers={"authorization": f"Bearer {project.api_key}", "x-request-id": "r1"})
    written = capfd.readouterr().err
    [line] = [json.loads(line) for line in written.splitlines()]
    expected = {"event": "request", "level": "info", "method": "GET", "path": "/v1/models", "status": 200}
    assert {name: line[name] for name in expected} == expected
    assert line["request_id"] == "r1"
    assert (line["project"], line["client"]) == (project.id, "testclient")
    assert line["key"].startswith("key-")
    assert project.api_key not in written
    assert "a=b" not in written


def test_a_live_server_logs_a_request_once_without_its_query(live: Live) -> None:
    """Neither uvicorn's own line nor a query, in which clients have put their keys."""
    sent = [f"req-{number}" for number in range(3)]
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {live.tenant.api_key}"}) as client:
        client.get("/v1/models?secret=query-1", headers={"x-request-id": sent[0]})
        client.get("/v1/nothing?secret=query-2", headers={"x-request-id": sent[1]})
        client.get(f"/v1/models?api_key={live.tenant.api_key}", headers={"x-request-id": sent[2]})
        client.get("/healthz?secret=query-3")
    until(lambda: all(one in live.log.read_text() for one in sent))
    written = live.log.read_text()
    assert "query-" not in written
    assert live.tenant.api_key not in written
    lines = [json.loads(line) for line in written.splitlines()]
    assert "uvicorn.access" not in {line.get("logger") for line in lines}
    for one, status in zip(sent, (200, 404, 400), strict=True):
        [line] = [line for line in lines if line.get("request_id") == one]
        assert (line["event"], line["status"], line["client"]) == ("request", status, "127.0.0.1")
        assert line["project"] == (live.tenant.id if status != 400 else None)


def test_the_server_itself_speaks_in_json_lines_too(live: Live) -> None:
    httpx.get(f"{live.url}/healthz").raise_for_status()
    until(lambda: '"request"' in live.log.read_text())  # a request is logged after its answer
    said = [json.loads(line) for line in live.log.read_text().splitlines()]
    assert {"Application startup complete.", "request"} <= {line["event"] for line in said}


def test_a_database_that_does_not_answer_is_a_503(settings: Settings, tmp_path: Path, api_key: str) -> None:
    gone = settings.model_copy(update={"database_url": f"postgresql+psycopg://postgres@/x?host={tmp_path}"})
    with TestClient(create_app(gone), raise_server_exceptions=False) as client:
        answer = client.get("/v1/models", headers={"authorization": f"Bearer {api_key}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
        assert answer.json()["error"]["type"] == "server_error"
        assert str(tmp_path) not in answer.text
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["error"]["message"] == "No answer from: database."
        assert ready.json()["checks"] == {"database": "no answer", "broker": "ok", "blobs": "ok", "disk": "ok"}
        assert client.get("/healthz").json() == {"status": "ok"}
