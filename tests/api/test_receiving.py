"""Uploads that are on their way: what they hold of the quota and of the disk, on a live server."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.tenants import projects
from tests.api import dataset_steps
from tests.api.open_request import START, START_OF_PART, answer, request, uploads
from tests.api.polling import until
from tests.api.serving import Live, serving
from tests.conftest import make_tenant

pytestmark = pytest.mark.integration
MIB = 2**20
QUOTA = MIB
END = b"\r\n--x--\r\n"
CHUNKED = "transfer-encoding: chunked"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    """A server of a project with a quota of 1 MiB."""
    with serving(tmp_path_factory.mktemp("small"), postgres_url, valkey_url) as server:
        set_quota(server, QUOTA)
        yield server


def set_quota(server: Live, stored_bytes: int) -> None:
    with server.sessions.begin() as session:
        projects.set_limits(session, server.tenant.name, own={"stored_bytes": stored_bytes}, dropped=())


def client_of(server: Live) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.tenant.api_key}"}, timeout=60)


def send_chunks(connection: socket.socket, first: bytes, most: int, piece: int = MIB) -> int:
    """Bytes that the server took before it closed or answered."""
    sent = 0
    with contextlib.suppress(OSError):
        connection.sendall(b"%x\r\n%s\r\n" % (len(first), first))
        while sent < most and not answered(connection):
            connection.sendall(b"%x\r\n%s\r\n" % (piece, bytes(piece)))
            sent += piece
    return sent


def answered(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def uploaded_bytes(server: Live) -> int:
    found = 0
    for path in uploads(server):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


@pytest.mark.parametrize("headers", [(), ("idempotency-key: new",)], ids=["without a key", "with a key"])
@pytest.mark.parametrize("which", ["file", "pair"])
def test_a_chunked_body_is_cut_off_at_the_quota(small: Live, which: str, headers: tuple[str, ...]) -> None:
    path, start = "/v1/files", START
    if which == "pair":
        with client_of(small) as client:
            dataset = client.post("/v1/datasets", json={"name": "a"}).json()["id"]
        path, start = f"/v1/datasets/{dataset}/pairs", START.replace(b'name="file"', b'name="chosen"')
    with request(small, path, CHUNKED, *headers, key=small.tenant.api_key) as connection:
        sent = send_chunks(connection, start, most=200 * MIB)
        assert answer(connection) == (403, "quota_exceeded")
    assert sent < 16 * MIB
    until(lambda: uploads(small) == [])


def test_a_declared_length_beyond_the_quota_is_refused_unread_with_an_idempotency_key_too(small: Live) -> None:
    length, named = f"content-length: {1500 * MIB}", "idempotency-key: mine"
    with request(small, "/v1/files", length, named, key=small.tenant.api_key) as connection:
        assert answer(connection) == (403, "quota_exceeded")


def test_a_key_that_was_answered_takes_the_same_body_again_and_no_larger_one(small: Live) -> None:
    set_quota(small, 3 * MIB)
    body = START + random.Random(1).randbytes(2 * MIB) + END
    headers = {"content-type": "multipart/form-data; boundary=x", "idempotency-key": "again"}
    with client_of(small) as client:
        first = client.post("/v1/files", content=body, headers=headers).json()
        again = client.post("/v1/files", content=body, headers=headers)
        assert (again.status_code, again.json()) == (200, first)  # over what is left of the quota
        with request(small, "/v1/files", CHUNKED, "idempotency-key: again", key=small.tenant.api_key) as connection:
            assert send_chunks(connection, START, most=200 * MIB) < 16 * MIB
            assert answer(connection) == (422, "idempotency_mismatch")
        assert client.delete(f"/v1/files/{first['id']}").status_code == 200
    set_quota(small, QUOTA)
    until(lambda: uploads(small) == [])


def test_uploads_at_the_same_time_share_the_quota(small: Live) -> None:
    """Each of ten would fit; together they hold no more than the quota, and the space comes back."""
    set_quota(small, 8 * MIB)
    try:
        with ExitStack() as stack:
            opened = [
                stack.enter_context(request(small, "/v1/files", CHUNKED, key=small.tenant.api_key)) for _ in range(10)
            ]
            for connection in opened:
                send_chunks(connection, START, most=3 * MIB)
            until(lambda: sum(answered(connection) for connection in opened) >= 7)
            assert {answer(connection) for connection in opened if answered(connection)} == {(403, "quota_exceeded")}
            assert uploaded_bytes(small) <= 8 * MIB
        until(lambda: uploads(small) == [])
        with client_of(small) as client:
            whole = client.post("/v1/files", content=START + bytes(7 * MIB) + END, headers=FORM)
            assert whole.status_code == 200
            assert client.delete(f"/v1/files/{whole.json()['id']}").status_code == 200
    finally:
        set_quota(small, QUOTA)


FORM = {"content-type": "multipart/form-data; boundary=x"}


def test_declared_lengths_are_reserved_from_the_start(small: Live) -> None:
    set_quota(small, 8 * MIB)
    try:
        length = f"content-length: {6 * MIB}"
        with request(small, "/v1/files", length, key=small.tenant.api_key) as first:
            first.sendall(START)
            until(lambda: len(uploads(small)) == 1)
            with request(small, "/v1/files", length, key=small.tenant.api_key) as second:
                assert answer(second) == (403, "quota_exceeded")
        until(lambda: uploads(small) == [])
        with request(small, "/v1/files", length, key=small.tenant.api_key) as third:
            third.sendall(START)
            until(lambda: len(uploads(small)) == 1)
    finally:
        set_quota(small, QUOTA)


def test_parts_at_the_same_time_hold_no_more_than_their_upload_may_have(small: Live) -> None:
    with client_of(small) as client:
        asked = {"filename": "a", "bytes": MIB, "mime_type": "application/zip", "purpose": "fine-tune"}
        upload = client.post("/v1/uploads", json=asked).json()["id"]
        path, length = f"/v1/uploads/{upload}/parts", f"content-length: {60 * MIB}"
        with request(small, path, length, key=small.tenant.api_key) as first:
            first.sendall(START_OF_PART)
            until(lambda: len(uploads(small)) == 1)
            with request(small, path, length, key=small.tenant.api_key) as second:
                assert answer(second) == (409, "too_many_parts")
        assert client.post(f"/v1/uploads/{upload}/cancel").status_code == 200


def test_two_processes_share_what_is_reserved(tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    with serving(tmp_path, postgres_url, valkey_url, api_processes=2) as server:
        set_quota(server, 8 * MIB)
        until(lambda: server.log.read_text().count("Application startup complete") == 2, seconds=60)
        with ExitStack() as stack:
            opened = [
                stack.enter_context(
                    request(server, "/v1/files", f"content-length: {5 * MIB}", key=server.tenant.api_key)
                )
                for _ in range(8)
            ]
            until(lambda: sum(answered(connection) for connection in opened) == 7)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 48 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={48 * MIB}", "tmpfs", str(at)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no permission to mount a small filesystem here")
    yield at
    subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_an_open_upload_does_not_take_the_reserve_from_others(disk: Path, postgres_url: str, valkey_url: str) -> None:
    """It is refused at the reserve while it is received, gives back what it has taken, and others go on."""
    with serving(disk, postgres_url, valkey_url, min_free_bytes=16 * MIB) as server, client_of(server) as client:
        with request(server, "/v1/files", CHUNKED, key=server.tenant.api_key) as connection:
            sent = send_chunks(connection, START, most=200 * MIB)
            assert answer(connection) == (507, "insufficient_storage")
        assert sent < 48 * MIB
        until(lambda: uploads(server) == [])
        other = make_tenant(server.sessions, "other")
        headers = FORM | {"authorization": f"Bearer {other.api_key}"}
        assert client.post("/v1/files", content=START + bytes(MIB) + END, headers=headers).status_code == 200


def test_one_project_cannot_use_all_requests_at_once(tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    with serving(tmp_path, postgres_url, valkey_url, requests_at_once=3) as server, ExitStack() as stack:
        other = make_tenant(server.sessions, "other")
        for _ in range(3):
            stack.enter_context(request(server, "/v1/files", "content-length: 1000", key=server.tenant.api_key))
        until(lambda: len(uploads(server)) == 3, seconds=30)  # a request before then would take the place of one
        with client_of(server) as client:
            refused = client.get("/v1/models")
            assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("too_many_open_requests", "5")
            theirs = {"authorization": f"Bearer {other.api_key}"}
            assert client.get("/v1/models", headers=theirs).status_code == 200
            stack.close()
            until(lambda: client.get("/v1/models").status_code == 200)


def test_a_pair_that_fits_into_the_quota_is_taken(small: Live) -> None:
    with client_of(small) as client:
        dataset = client.post("/v1/datasets", json={"name": "foxes"}).json()["id"]
        images: dict[str, Any] = {"chosen": dataset_steps.image_file(1), "rejected": dataset_steps.image_file(2)}
        assert dataset_steps.send(client, dataset, **images).status_code == 200
