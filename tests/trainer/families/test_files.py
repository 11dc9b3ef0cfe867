"""Bases on the hub, and the hash of a base's files."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from trainer.families.files import content_hash
from trainer.families.locate import locate
from trainer.runtime.errors import BadRun, BaseUnavailable
from trainer.spec.run import Base

pytestmark = pytest.mark.unit

REVISION = "0123456789abcdef0123456789abcdef01234567"


def hub_base(source: str) -> Base:
    return Base(name="b", family="sdxl", source=source, revision=REVISION)


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its tries


def hub_at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound but not listening: nobody else can, and connections are refused
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def answering(status: int, error_code: str | None) -> HTTPServer:
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if error_code is not None:
                self.send_header("X-Error-Code", error_code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return HTTPServer(("127.0.0.1", 0), Hub)


@pytest.fixture
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that answers everything with the status and error code of the test's parameter."""
    server = answering(*request.param)
    hub_at(monkeypatch, server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_that_cannot_be_reached_is_not_the_runs_fault(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    hub_at(monkeypatch, closed_port)
    with pytest.raises(BaseUnavailable, match=r"someone/model.*Try again later") as raised:
        locate(hub_base("someone/model"), ("unet",), half=False)
    assert (raised.value.code, raised.value.source) == ("base_unavailable", "someone/model")


@pytest.mark.parametrize("hub", [(429, None), (500, None), (503, None)], indirect=True)
@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_down_is_not_the_runs_fault() -> None:
    with pytest.raises(BaseUnavailable):
        locate(hub_base("someone/model"), ("unet",), half=False)


@pytest.mark.parametrize(
    "hub",
    [(404, "RepoNotFound"), (404, "RevisionNotFound"), (401, None), (403, "GatedRepo"), (403, None)],
    indirect=True,
)
@pytest.mark.usefixtures("hub")
def test_a_base_that_the_hub_refuses_is_refused_for_good() -> None:
    with pytest.raises(BadRun, match="'someone/model' at '0123") as raised:
        locate(hub_base("someone/model"), ("unet",), half=False)
    assert raised.value.code == "base_not_found"


def test_what_cannot_be_a_hub_id_is_refused_without_asking(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    hub_at(monkeypatch, closed_port)
    with pytest.raises(BadRun):
        locate(hub_base("not/a/hub/id"), ("unet",), half=False)


def component(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text("{}")
    return folder


def test_the_hash_follows_names_and_contents_of_what_can_be_loaded(tmp_path: Path) -> None:
    original = component(tmp_path / "a" / "vae", b"weights")
    same = component(tmp_path / "b" / "vae", b"weights")
    (same / "README.md").write_text("not loaded")
    others = [component(tmp_path / "c" / "vae", b"Weights"), component(tmp_path / "d" / "unet", b"weights")]
    hashes = [content_hash([folder], half=False) for folder in (original, same, *others)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_files_of_the_hubs_cache_hash_as_their_copies_without_being_read(tmp_path: Path) -> None:
    copy = component(tmp_path / "copy" / "vae", b"weights")
    linked = component(tmp_path / "snapshots" / "vae", b"")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    blob = blobs / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"never read")
    (linked / "model.safetensors").unlink()
    (linked / "model.safetensors").symlink_to(blob)
    assert content_hash([linked], half=False) == content_hash([copy], half=False)


def test_the_hash_is_of_the_weights_that_are_loaded(tmp_path: Path) -> None:
    folder = component(tmp_path / "vae", b"weights")
    plain = content_hash([folder], half=True)
    (folder / "model.non_ema.safetensors").write_bytes(b"other weights")
    assert content_hash([folder], half=True) == plain
    (folder / "model.fp16.safetensors").write_bytes(b"half")
    assert content_hash([folder], half=False) == plain
    assert content_hash([folder], half=True) != plain
