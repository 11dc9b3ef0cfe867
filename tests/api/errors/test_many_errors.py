"""A request with as much wrong in it as fits: the answer stays small, and costs little."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from api.errors.errors import LISTED
from api.http.route_rules import JSON_LIMIT
from tests.api.serving import Live

pytestmark = pytest.mark.integration
LARGEST_ANSWER = 128 * 1024
JOB = {"model": "tiny", "training_file": "file-none"}
FIELDS = {f"k{number}": 1 for number in range(18_000)}
LONG = "m" * 200_000

# Each fits into the limit of a body, nearly.
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "items of a list": ("/v1/datasets", {"name": "a", "file_ids": [1] * 80_000}),
    "items of a list of choices": ("/v1/webhooks", {"url": "https://a.example", "events": [1] * 80_000}),
    "items of a list in an object": ("/v1/fine_tuning/jobs", JOB | {"sampling": {"prompts": [1] * 80_000}}),
    "items of a list without a limit": ("/v1/fine_tuning/jobs", JOB | {"adapter": {"target_modules": [1] * 80_000}}),
    "items of a list that are lists": ("/v1/fine_tuning/jobs", JOB | {"integrations": [[]] * 80_000}),
    "values of metadata": ("/v1/datasets", {"name": "a", "metadata": FIELDS}),
    "unknown fields": ("/v1/fine_tuning/jobs", FIELDS),
    "unknown fields of an object": ("/v1/fine_tuning/jobs", JOB | {"adapter": FIELDS}),
    "unknown hyperparameters": (
        "/v1/fine_tuning/jobs",
        JOB | {"method": {"type": "dpo", "dpo": {"hyperparameters": FIELDS}}},
    ),
    "a long name": ("/v1/images/generations", {"model": "tiny", "prompt": "a", LONG: 1}),
    "long names": ("/v1/uploads", {f"{number}{LONG[:4500]}": 1 for number in range(50)}),
    "a long value": ("/v1/images/generations", {"model": LONG, "prompt": "a"}),
    "a long type": ("/v1/fine_tuning/jobs", JOB | {"method": {"type": LONG}}),
    "a long reference": ("/v1/fine_tuning/jobs", JOB | {"training_file": LONG}),
}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime and stime


@pytest.mark.parametrize("wrong", BODIES)
def test_an_answer_does_not_grow_with_what_is_wrong(live: Live, wrong: str) -> None:
    path, document = BODIES[wrong]
    body = json.dumps(document, separators=(",", ":")).encode()
    assert 100_000 < len(body) <= JSON_LIMIT
    headers = {"authorization": f"Bearer {live.tenant.api_key}", "content-type": "application/json"}
    before = cpu_seconds(live.pid)
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(httpx.post, live.url + path, content=body, headers=headers, timeout=60) for _ in range(4)]
        answers = [one.result() for one in sent]
    assert cpu_seconds(live.pid) - before < 4 * 0.5
    for answer in answers:
        assert answer.status_code in (400, 404), answer.text[:300]
        assert len(answer.content) < LARGEST_ANSWER
        assert len(answer.json()["error"].get("errors", [])) <= LISTED


def test_the_errors_that_are_not_listed_are_counted(client: TestClient) -> None:
    begun = client.post(
        "/v1/uploads", json={"filename": "a", "bytes": 1, "mime_type": "a/zip", "purpose": "fine-tune"}
    ).json()
    for part_ids in ([1] * 3000, [f"part-{number}" for number in range(3000)]):
        error = client.post(f"/v1/uploads/{begun['id']}/complete", json={"part_ids": part_ids}).json()["error"]
        assert error["message"].startswith("3000 errors in the request:\n- part_ids.0: ")
        assert error["message"].endswith(f"\n- and {3000 - LISTED} more")
        assert [one["param"] for one in error["errors"]] == [f"part_ids.{number}" for number in range(LISTED)]
        assert error["more_errors"] == 3000 - LISTED


def test_as_many_errors_as_are_listed_are_all_there(client: TestClient) -> None:
    error = client.post("/v1/datasets", json={f"k{number}": 1 for number in range(LISTED - 1)}).json()["error"]
    assert len(error["errors"]) == LISTED  # the missing name too
    assert "more_errors" not in error


def test_a_long_url_is_not_repeated(client: TestClient) -> None:
    for path in (f"/v1/{LONG[:60_000]}", f"/v1/files/{LONG[:60_000]}", f"/v1/files?limit={LONG[:60_000]}"):
        answer = client.get(path)
        assert answer.status_code in (400, 404)
        assert len(answer.content) < 4096


def test_a_json_body_may_have_256_kib_unless_its_route_says_otherwise(client: TestClient) -> None:
    padded = b'{"name": "a"' + b" " * JSON_LIMIT + b"}"
    assert client.post("/v1/datasets", content=padded).status_code == 413
    begun = client.post(
        "/v1/uploads", json={"filename": "a", "bytes": 1, "mime_type": "a/zip", "purpose": "fine-tune"}
    ).json()
    ids = [f"part-{number:032}" for number in range(10_000)]
    answer = client.post(f"/v1/uploads/{begun['id']}/complete", json={"part_ids": ids})
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/fine_tuning/jobs", "/v1/images/generations", "/v1/uploads"])
def test_a_body_is_parsed_without_a_database_connection(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the routes that only have to know their caller first."""
    held: list[int] = []
    pool = client.app.state.dependencies.sessions.kw["bind"].pool  # type: ignore[attr-defined]
    from api.errors import validated

    checked = validated.checked

    def noted(*arguments: Any) -> Any:
        held.append(pool.checkedout())
        return checked(*arguments)

    for module in ("api.errors.validated", "api.fine_tuning.request", "api.images.request"):
        monkeypatch.setattr(f"{module}.checked", noted)
    before = time.monotonic()
    answer = client.post(path, json={"no": 1}, headers={"idempotency-key": "one"})
    assert (answer.status_code, held) == (400, [0])
    assert time.monotonic() - before < 10
