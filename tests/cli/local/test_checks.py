"""Each check of `pairtune doctor` on what it checks for: well, and broken in the ways that happen."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cli.local import checks
from cli.local.checks import Checked
from store.settings import Settings
from tests.api.serving import Live

pytestmark = pytest.mark.integration


def of(tmp_path: Path, **given: Any) -> Settings:
    return Settings(home=tmp_path / "home", **given)


def assert_says(found: Checked, state: str, text: str, cure: str) -> None:
    assert found.state == state, found
    assert text in found.found, found
    assert cure in found.cure, found
    assert bool(found.cure) == (state == "error"), found


@pytest.mark.parametrize("broken", ["raise ImportError('libcudart.so.13: cannot open')", "import os; os.abort()"])
def test_a_torch_that_cannot_be_used_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    (tmp_path / "torch.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = checks.device(of(tmp_path))
    assert_says(found, "error", "torch cannot be used: ", "from requirements.lock")
    assert "libcudart" in found.found or "abort" in broken


def test_a_database_is_well_or_says_what_is_wrong(tmp_path: Path, database_url: str, postgres_url: str) -> None:
    assert_says(checks.database(of(tmp_path)), "ok", "embedded", "")
    assert_says(checks.database(of(tmp_path, database_url=database_url)), "ok", "this version's tables", "")
    empty = checks.database(of(tmp_path, database_url=postgres_url))
    assert_says(empty, "error", "do not match this version", "python -m migrations")
    for wrong in ("postgresql+psycopg://nobody@127.0.0.1:9/none", "nonsense"):
        found = checks.database(of(tmp_path, database_url=wrong))
        assert_says(found, "error", "", "correct PAIRTUNE_DATABASE_URL")
        assert found.found


def test_a_broker_is_well_or_says_what_is_wrong(tmp_path: Path, valkey_url: str) -> None:
    assert_says(checks.broker(of(tmp_path)), "ok", "embedded", "")
    assert_says(checks.broker(of(tmp_path, broker_url=valkey_url)), "ok", "answers", "")
    for away, shown in (
        ("redis+socket:///nowhere.sock", "redis+socket:///nowhere.sock"),
        ("redis://:secret@127.0.0.1:9/0", "redis://:**@127.0.0.1:9/0"),
    ):
        found = checks.broker(of(tmp_path, broker_url=away))
        assert_says(found, "error", f"{shown} does not answer", "Start Redis or Valkey, or correct PAIRTUNE_BROKER_URL")
    for wrong in ("foo://x", "redis://:se/cret@h:1/0"):
        found = checks.broker(of(tmp_path, broker_url=wrong))
        assert_says(found, "error", "it is not the URL of a broker", "Correct PAIRTUNE_BROKER_URL")


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_local_store_is_written_and_read_and_nothing_stays(tmp_path: Path) -> None:
    for _ in range(2):
        assert_says(checks.storage(of(tmp_path)), "ok", str(tmp_path / "home" / "blobs"), "")
        assert everything_in(tmp_path) == []
    there = tmp_path / "there"
    there.mkdir()
    assert_says(checks.storage(of(tmp_path, blob_url=f"file://{there}")), "ok", str(there), "")
    assert everything_in(tmp_path) == [there]


@pytest.mark.parametrize("url", ["file:///proc/blobs", "file:///dev/null/blobs", "nonsense", "foo://x"])
def test_a_store_that_cannot_be_written_is_reported(tmp_path: Path, url: str) -> None:
    assert_says(checks.storage(of(tmp_path, blob_url=url)), "error", url, "Correct PAIRTUNE_BLOB_URL")


class Bucket(BaseHTTPRequestHandler):
    """An object store of one bucket; ``spoil`` changes what it gives back, and read-only it takes nothing."""

    stored: ClassVar[dict[str, bytes]] = {}
    taken: ClassVar[list[str]] = []
    spoil: ClassVar[bytes] = b""
    read_only: ClassVar[bool] = False

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.read_only:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        self.stored[self.path] = content
        self.taken.append(self.path)
        self._answer(200)

    def do_GET(self) -> None:
        self._answer(200, self.stored[self.path] + self.spoil)

    def do_POST(self) -> None:
        """Of many deletions in one request, as S3 has it."""
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        names = re.findall("<Key>(.*?)</Key>", body)
        for name in names:
            del self.stored[f"{self.path.partition('?')[0]}/{name}"]
        gone = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
        self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("etag", '"1"')
        self.send_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    monkeypatch.setattr(Bucket, "stored", {})
    monkeypatch.setattr(Bucket, "taken", [])
    server = HTTPServer(("127.0.0.1", 0), Bucket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Bucket
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_object_store_is_written_and_read_and_nothing_stays(
    tmp_path: Path, bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_says(checks.storage(of(tmp_path, blob_url="s3://blobs")), "ok", "s3://blobs", "")
    monkeypatch.setattr(bucket, "spoil", b"!")
    assert_says(checks.storage(of(tmp_path, blob_url="s3://blobs")), "error", "other bytes", "object store")
    assert (len(bucket.taken), bucket.stored) == (2, {})
    monkeypatch.setattr(bucket, "read_only", True)
    assert_says(checks.storage(of(tmp_path, blob_url="s3://blobs")), "error", "s3://blobs: ", "or its rights")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    assert_says(checks.storage(of(tmp_path, blob_url="s3://blobs")), "error", "s3://blobs: ", "PAIRTUNE_BLOB_URL")


def test_little_disk_space_is_reported_before_and_after_the_api_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.disk(of(tmp_path, min_free_bytes=0)).found.endswith(f"GiB free at {tmp_path}")
    assert_says(
        checks.disk(of(tmp_path, min_free_bytes=2**60)), "error", "GiB free", "the API takes no upload and no job"
    )
    monkeypatch.setattr(checks, "LITTLE_DISK", 2**60)
    found = checks.disk(of(tmp_path, min_free_bytes=0))
    assert (found.state, "free disk space" in found.cure) == ("warning", True)
    monkeypatch.setattr(checks, "LITTLE_DISK", 0)
    assert checks.disk(of(tmp_path, min_free_bytes=0)).state == "ok"


def test_bases_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    (tmp_path / "bases.toml").write_text("[[base]\n")
    for wrong in (tmp_path / "bases.toml", tmp_path / "missing.toml"):
        assert_says(checks.bases(of(tmp_path, bases_file=wrong)), "error", str(wrong), "PAIRTUNE_BASES_FILE")
    assert_says(checks.bases(of(tmp_path)), "ok", "emoji-xl", "")


def test_an_api_is_well_or_says_what_is_wrong(tmp_path: Path, live: Live) -> None:
    assert_says(checks.api(of(tmp_path, url=live.url, api_key=live.tenant.api_key)), "ok", live.url, "")
    assert_says(checks.api(of(tmp_path, url=live.url, api_key="pt-wrong")), "error", "[401", "PAIRTUNE_API_KEY")
    assert_says(checks.api(of(tmp_path, url=live.url)), "error", "no API key", "set PAIRTUNE_API_KEY")
    for wrong in ("http://127.0.0.1:9", "http://127.0.0.1:port", "localhost:8000"):
        found = checks.api(of(tmp_path, url=wrong))
        assert (found.state, wrong in found.found, "PAIRTUNE_URL" in found.cure) == ("warning", True, True)


def test_an_address_that_is_no_api_is_reported(tmp_path: Path, bucket: type[Bucket]) -> None:
    bucket.stored["/v1/models?limit=1"] = bucket.stored["/healthz"] = b"It works!"
    found = checks.api(of(tmp_path, url=os.environ["AWS_ENDPOINT"], api_key="pt-x"))
    assert_says(found, "error", "is not a pairtune API", "Correct PAIRTUNE_URL")
