"""Clients that send no request, an endless one, or read no answer; on real sockets."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from api.server.connection import MAX_HEAD_BYTES
from store.blobs.blobs import Blobs
from store.files import files
from store.files.files import NewFile
from tests.api.polling import until
from tests.api.serving import Live, serving

pytestmark = pytest.mark.integration
HEAD_SECONDS = 1.0
IDLE_SECONDS = 1.0
MAX_CONNECTIONS = 20
MIB = 2**20


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("guarded")
    with serving(
        home,
        postgres_url,
        valkey_url,
        head_seconds=HEAD_SECONDS,
        max_connections=MAX_CONNECTIONS,
        upload_idle_seconds=IDLE_SECONDS,
        download_idle_seconds=IDLE_SECONDS,
    ) as server:
        yield server


@contextmanager
def connected(server: Live) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    received = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            received += more
    return received


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def send_until_refused(connection: socket.socket, start: bytes, piece: bytes, most: int) -> int:
    """Bytes that the server took of an endless head."""
    sent = len(start)
    connection.sendall(start)
    with suppress(BrokenPipeError, ConnectionResetError):
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    return sent


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


HEAD = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"POST /v1/fine_tuning/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
ENDLESS = {
    "one header": (HEAD + b"x-long: ", b"a" * 65536),
    "many headers": (HEAD, b"x-a: b\r\n" * 8192),
    "a header's name": (HEAD, b"a" * 65536),
    "a url": (b"GET /", b"a" * 65536),
    "a method": (b"", b"A" * 65536),
    "empty lines": (b"", b"\r\n" * 32768),
    "a second request's header": (HEAD + b"\r\n" + HEAD + b"x-long: ", b"a" * 65536),
}


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_head_without_end_is_cut_off_and_costs_no_memory(guarded: Live, endless: str) -> None:
    httpx.get(f"{guarded.url}/healthz").raise_for_status()
    before = resident_bytes(guarded.pid)
    with connected(guarded) as connection:
        sent = send_until_refused(connection, *ENDLESS[endless], most=240 * MIB)
    assert sent < 16 * MIB  # what the buffers of both sockets take
    assert resident_bytes(guarded.pid) - before < 16 * MIB


@pytest.mark.parametrize("part", ["extension", "trailer"])
def test_a_chunk_without_end_is_cut_off(guarded: Live, part: str) -> None:
    start = CHUNKED + f"authorization: Bearer {guarded.tenant.api_key}\r\n\r\n".encode()
    start += {"extension": b"1;a=", "trailer": b"1\r\na\r\n0\r\n"}[part]
    with connected(guarded) as connection:
        piece = {"extension": b"a" * 65536, "trailer": b"x-a: b\r\n" * 8192}[part]
        assert send_until_refused(connection, start, piece, most=240 * MIB) < 16 * MIB


def test_a_head_over_the_limit_is_431_also_if_it_comes_in_one_piece(guarded: Live) -> None:
    with connected(guarded) as connection:
        connection.sendall(HEAD + b"x-long: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n")
        assert error_of(everything(connection)) == (431, "head_too_large")
    with connected(guarded) as connection:
        connection.sendall(HEAD + b"x-long: " + b"a" * (MAX_HEAD_BYTES // 2) + b"\r\nconnection: close\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_http_is_400_in_our_shape(guarded: Live) -> None:
    with connected(guarded) as connection:
        connection.sendall(b"\x16\x03\x01\r\n\r\n")
        assert error_of(everything(connection)) == (400, "invalid_http")


@pytest.mark.parametrize("start", [b"", b"G", HEAD, HEAD + b"x-a: b\r\n"], ids=["nothing", "a byte", "half", "most"])
def test_a_head_that_does_not_come_is_not_waited_for(guarded: Live, start: bytes) -> None:
    with connected(guarded) as connection:
        connection.sendall(start)
        began = time.monotonic()
        answer = everything(connection)
        assert time.monotonic() - began < 10 * HEAD_SECONDS
    if start:
        assert error_of(answer) == (408, "request_timeout")
    else:
        assert answer == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(guarded: Live) -> None:
    with connected(guarded) as connection:
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(HEAD)
            while time.monotonic() - began < 10 * HEAD_SECONDS:
                connection.sendall(b"x")
                time.sleep(HEAD_SECONDS / 10)  # the slowness is the subject
        assert time.monotonic() - began < 5 * HEAD_SECONDS


def test_the_head_of_the_next_request_is_not_waited_for_either(guarded: Live) -> None:
    with connected(guarded) as connection:
        connection.sendall(HEAD + b"\r\n")
        until(lambda: b'{"status":"ok"}' in connection.recv(65536, socket.MSG_PEEK))
        connection.sendall(HEAD)
        assert b"408" in everything(connection)


def test_the_rest_of_a_refused_body_is_read_for_a_while_only(guarded: Live) -> None:
    with connected(guarded) as connection:
        connection.sendall(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        until(lambda: b"invalid_api_key" in connection.recv(65536, socket.MSG_PEEK))
        began = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 20 * IDLE_SECONDS:
                connection.sendall(b"x")
                time.sleep(IDLE_SECONDS / 10)  # the slowness is the subject
        assert time.monotonic() - began < 10 * IDLE_SECONDS


def test_connections_that_send_nothing_make_way_for_one_that_works(guarded: Live) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(guarded)) for _ in range(MAX_CONNECTIONS)]
        for _ in range(3):
            assert httpx.get(f"{guarded.url}/healthz").status_code == 200
        assert everything(silent[0]) == b""  # the oldest was closed


def test_when_every_connection_is_in_use_a_new_one_is_503(guarded: Live) -> None:
    """Each holds a request whose body is still to come."""
    head = b"POST /v1/fine_tuning/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n"
    head += f"authorization: Bearer {guarded.tenant.api_key}\r\n\r\n".encode()
    with ExitStack() as stack:
        used = [stack.enter_context(connected(guarded)) for _ in range(MAX_CONNECTIONS)]
        for connection in used:
            connection.sendall(head)
        with connected(guarded) as refused:
            assert error_of(everything(refused)) == (503, "too_many_connections")
    until(lambda: httpx.get(f"{guarded.url}/healthz").status_code == 200)


def test_a_client_that_does_not_read_its_answer_is_disconnected(guarded: Live, tmp_path: Path) -> None:
    blobs = Blobs(f"file://{guarded.home / 'blobs'}")
    large = tmp_path / "large"
    large.write_bytes(bytes(64 * MIB))
    blob = blobs.put_file(large)
    with guarded.sessions.begin() as session:
        new = NewFile(guarded.tenant.id, "large", "fine-tune", blob.bytes, blob.sha256)
        file_id = files.create(session, new, status="processed").id
    with connected(guarded) as connection:
        request = f"GET /v1/files/{file_id}/content HTTP/1.1\r\nhost: x\r\n"
        connection.sendall(f"{request}authorization: Bearer {guarded.tenant.api_key}\r\n\r\n".encode())
        until(lambda: f"/v1/files/{file_id}/content" in guarded.log.read_text(), seconds=20)  # it was ended, and logged
        assert len(everything(connection)) < blob.bytes
