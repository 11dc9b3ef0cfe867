"""Files on S3 come from there: by a signed URL, with no key, for every client that can follow."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from cli.client.server import Server
from store.settings import Settings
from tests.api.conftest import open_client
from tests.api.serving import Live, serving
from tests.s3 import Store, object_store, refusal

pytestmark = pytest.mark.integration
CONTENT = bytes(range(256)) * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "s3://bucket/a prefix"
PATH = f"/bucket/a%20prefix/sha256/{SHA256[:2]}/{SHA256}"


@dataclass(frozen=True)
class Position:
    live: Live
    store: Store
    file_id: str

    @property
    def content(self) -> str:
        return f"{self.live.url}/v1/files/{self.file_id}/content"

    @property
    def key(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.live.tenant.api_key}"}


@pytest.fixture(scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Position]:
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        with serving(tmp_path_factory.mktemp("s3"), postgres_url, valkey_url, blob_url=URL) as live:
            sdk = OpenAI(base_url=f"{live.url}/v1", api_key=live.tenant.api_key)
            yield Position(live, store, sdk.files.create(file=("päirs.zip", CONTENT), purpose="fine-tune").id)


@pytest.fixture
def position(_place: Position) -> Position:
    _place.store.signed.clear()
    return _place


def assert_came_from_the_store(position: Position) -> None:
    """Once, and without the key, which is nowhere in the URL nor the URL in the log."""
    [(target, headers)] = position.store.signed
    assert urlsplit(target).path == PATH
    assert "authorization" not in headers
    assert position.live.tenant.api_key not in target
    assert "X-Amz-Signature" not in position.live.log.read_text()


def test_the_sdk_follows_and_leaves_its_key_behind(position: Position) -> None:
    with OpenAI(base_url=f"{position.live.url}/v1", api_key=position.live.tenant.api_key, max_retries=0) as sdk:
        assert sdk.files.content(position.file_id).read() == CONTENT
    assert_came_from_the_store(position)


def test_the_command_line_follows_and_leaves_its_key_behind(position: Position, tmp_path: Path) -> None:
    with httpx.Client(base_url=position.live.url, headers=position.key) as client:
        assert Server(client).download(f"/v1/files/{position.file_id}/content", tmp_path / "pairs.zip") == len(CONTENT)
    assert (tmp_path / "pairs.zip").read_bytes() == CONTENT
    assert_came_from_the_store(position)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is what follows")
def test_curl_follows_has_the_name_and_goes_on_where_it_broke_off(position: Position, tmp_path: Path) -> None:
    def curl(*options: str) -> None:
        key = f"authorization: {position.key['authorization']}"
        subprocess.run(["curl", "-sSfL", "-H", key, *options, position.content], cwd=tmp_path, check=True)

    curl("-OJ")
    assert_came_from_the_store(position)
    [written] = tmp_path.iterdir()
    assert written.read_bytes() == CONTENT
    assert written.name in ("p_irs.zip", "päirs.zip")  # by curl's version
    position.store.signed.clear()
    (tmp_path / "half").write_bytes(CONTENT[:1000])
    curl("-o", "half", "-C", "-")
    assert (tmp_path / "half").read_bytes() == CONTENT
    assert position.store.signed[0][1]["range"] == "bytes=1000-"


def test_a_redirect_says_where_for_how_long_and_is_not_cached(position: Position) -> None:
    answer = httpx.get(position.content, headers=position.key)
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (302, b"", "private, no-store")
    assert "filename*=UTF-8''p%C3%A4irs.zip" in answer.headers["content-disposition"]
    target = answer.headers["location"].removeprefix(f"http://127.0.0.1:{position.store.port}")
    assert parse_qs(urlsplit(target).query)["X-Amz-Expires"] == ["300"]
    host = {"host": f"127.0.0.1:{position.store.port}"}
    now = datetime.now(UTC)
    assert refusal("GET", target, host, now) is None
    assert refusal("GET", target, host, now + timedelta(seconds=301)) == "AccessDenied"
    assert refusal("GET", target.replace(SHA256, "0" * 64), host, now) == "SignatureDoesNotMatch"
    assert refusal("HEAD", target, host, now) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "requested",
    [
        {"origin": "https://studio.example"},
        {"range": "bytes=5-", "if-range": f'"{SHA256}"'},
        {"user-agent": "Wget/1.21.3"},
    ],
)
def test_a_client_that_a_redirect_would_break_has_its_bytes_from_the_api(
    position: Position, requested: dict[str, str]
) -> None:
    answer = httpx.get(position.content, headers=position.key | requested)
    start, status = (5, 206) if "range" in requested else (0, 200)
    assert (answer.status_code, answer.content, position.store.signed) == (status, CONTENT[start:], [])


def test_what_the_api_knows_it_answers_itself(position: Position) -> None:
    head = httpx.head(position.content, headers=position.key)
    assert (head.status_code, head.headers["etag"], head.headers["content-length"]) == (200, f'"{SHA256}"', "2560")
    known = httpx.get(position.content, headers=position.key | {"if-none-match": f'"{SHA256}"'})
    beyond = httpx.get(position.content, headers=position.key | {"range": "bytes=9999-"})
    assert (known.status_code, beyond.status_code, position.store.signed) == (304, 416, [])
    stored = position.store.stored.pop(PATH)
    gone = httpx.get(position.content, headers=position.key)
    position.store.stored[PATH] = stored
    assert (gone.status_code, gone.json()["error"]["code"]) == (500, "file_content_missing")


def test_an_operator_may_keep_clients_from_the_store(
    position: Position, settings: Settings, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in position.store.environment().items():
        monkeypatch.setenv(name, value)
    inside = settings.model_copy(update={"blob_url": URL, "redirect_downloads": False})
    with open_client(inside) as other:
        other.headers["authorization"] = client.headers["authorization"]
        file = other.post("/v1/files", files={"file": ("a.zip", CONTENT)}, data={"purpose": "fine-tune"}).json()
        answer = other.get(f"/v1/files/{file['id']}/content", follow_redirects=False)
    assert (answer.status_code, answer.content, position.store.signed) == (200, CONTENT, [])
