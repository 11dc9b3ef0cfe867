"""Bodies of parts that are too long, lie about it, stall or stop half way; on real sockets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import httpx
import pytest

from store.files.uploads import PART_BYTES
from tests.api.open_request import START, START_OF_PART, answer, request, uploads
from tests.api.polling import until
from tests.api.serving import Live, serving

pytestmark = pytest.mark.integration
END = b"\r\n--x--\r\n"
IDLE_SECONDS = 0.5
BYTES_PER_SECOND = 400
LIMIT_SECONDS = 4.0


@pytest.fixture
def key(live: Live) -> str:
    return live.tenant.api_key


def begin(server: Live, size: int = 200_000) -> str:
    """The path of a new upload's parts."""
    requested = {"filename": "a.zip", "bytes": size, "mime_type": "application/zip", "purpose": "fine-tune"}
    headers = {"authorization": f"Bearer {server.tenant.api_key}"}
    created = httpx.post(f"{server.url}/v1/uploads", json=requested, headers=headers).json()
    return f"/v1/uploads/{created['id']}/parts"


def arrived(server: Live, parts: str) -> int:
    headers = {"authorization": f"Bearer {server.tenant.api_key}"}
    return len(httpx.get(server.url + parts, headers=headers).json()["data"])


def test_a_part_without_a_key_is_not_waited_for(live: Live) -> None:
    parts = begin(live)
    with request(live, parts, f"content-length: {5 * 10**9}") as connection:
        assert answer(connection) == (401, "invalid_api_key")
    with request(live, parts, "transfer-encoding: chunked", key="pt-wrong") as connection:
        assert answer(connection) == (401, "invalid_api_key")
    assert uploads(live) == []


def test_a_part_for_no_upload_or_an_ended_one_is_not_waited_for(live: Live, key: str) -> None:
    with request(live, "/v1/uploads/upload-none/parts", "content-length: 1000", key=key) as connection:
        assert answer(connection) == (404, "upload_not_found")
    parts = begin(live)
    cancel = live.url + parts.replace("/parts", "/cancel")
    assert httpx.post(cancel, headers={"authorization": f"Bearer {key}"}).status_code == 200
    with request(live, parts, "content-length: 1000", key=key) as connection:
        assert answer(connection) == (409, "invalid_upload_state")
    assert uploads(live) == []


def test_a_declared_length_over_a_parts_cap_is_refused_unread(live: Live, key: str) -> None:
    with request(live, begin(live), f"content-length: {2 * PART_BYTES}", key=key) as connection:
        assert answer(connection) == (413, "request_too_large")


def test_a_chunked_part_is_cut_off_at_the_cap_and_leaves_nothing(live: Live, key: str) -> None:
    parts = begin(live)
    with request(live, parts, "transfer-encoding: chunked", key=key) as connection:
        for chunk in (START_OF_PART, *[bytes(2**20)] * 65):
            connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        assert answer(connection) == (413, "request_too_large")
    until(lambda: uploads(live) == [])
    assert arrived(live, parts) == 0


def test_a_length_that_is_less_than_the_form_makes_an_unfinished_form(live: Live, key: str) -> None:
    parts = begin(live)
    body = START_OF_PART + b"x" * 100 + END
    with request(live, parts, f"content-length: {len(body) - 20}", key=key) as connection:
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    until(lambda: uploads(live) == [])
    assert arrived(live, parts) == 0


def test_an_aborted_part_leaves_neither_a_file_nor_a_row(live: Live, key: str) -> None:
    parts = begin(live)
    with request(live, parts, "content-length: 200000", key=key) as connection:
        connection.sendall(START_OF_PART + b"x" * 50_000)
        until(lambda: len(uploads(live)) == 1)
    until(lambda: uploads(live) == [])
    assert arrived(live, parts) == 0


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("impatient")
    with serving(
        home,
        postgres_url,
        valkey_url,
        upload_idle_seconds=IDLE_SECONDS,
        upload_bytes_per_second=BYTES_PER_SECOND,
        upload_limit_seconds=LIMIT_SECONDS,
    ) as server:
        yield server


@pytest.mark.parametrize("which", ["file", "part"])
def test_a_client_that_stalls_is_cut_off_and_leaves_nothing(impatient: Live, which: str) -> None:
    path, start = ("/v1/files", START) if which == "file" else (begin(impatient), START_OF_PART)
    with request(impatient, path, "content-length: 200000", key=impatient.tenant.api_key) as connection:
        connection.sendall(start + b"x" * 50_000)
        assert answer(connection) == (408, "request_timeout")
        connection.settimeout(2)
        assert connection.recv(1) == b""  # closed, and not by uvicorn's 5 seconds of keep-alive
    until(lambda: uploads(impatient) == [])


def test_a_client_that_sends_no_body_at_all_is_cut_off(impatient: Live) -> None:
    for path in ("/v1/files", "/v1/fine_tuning/jobs"):
        with request(impatient, path, "content-length: 1000", key=impatient.tenant.api_key) as connection:
            assert answer(connection) == (408, "request_timeout")


def test_a_slow_client_that_goes_on_sending_is_waited_for(impatient: Live) -> None:
    body = START + b"x" * 1000 + END
    with request(impatient, "/v1/files", f"content-length: {len(body)}", key=impatient.tenant.api_key) as connection:
        started = time.monotonic()
        for at in range(0, len(body), 200):
            connection.sendall(body[at : at + 200])
            time.sleep(IDLE_SECONDS / 4)  # the slowness is the subject
        assert time.monotonic() - started > IDLE_SECONDS
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("which", ["file", "part", "json"])
def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(impatient: Live, which: str) -> None:
    """Also one that has sent much before."""
    path = {"file": "/v1/files", "part": begin(impatient), "json": "/v1/datasets"}[which]
    start = {"file": START, "part": START_OF_PART, "json": b"{"}[which]
    with request(impatient, path, "content-length: 250000", key=impatient.tenant.api_key) as connection:
        connection.sendall(start + b"x" * 50_000)
        began = time.monotonic()
        connection.settimeout(IDLE_SECONDS / 5)
        received = b""
        while b"}}" not in received:
            assert time.monotonic() - began < 10 * IDLE_SECONDS
            with contextlib.suppress(TimeoutError):
                received += connection.recv(65536)
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
    assert received.startswith(b"HTTP/1.1 408 ")
    until(lambda: uploads(impatient) == [])


def test_a_body_that_never_ends_is_cut_off_although_it_is_fast_enough(impatient: Live) -> None:
    with request(impatient, "/v1/files", "transfer-encoding: chunked", key=impatient.tenant.api_key) as connection:
        began = time.monotonic()
        connection.sendall(b"%x\r\n%s\r\n" % (len(START), START))
        connection.settimeout(IDLE_SECONDS / 10)
        received = b""
        while b"}}" not in received:
            assert time.monotonic() - began < 5 * LIMIT_SECONDS
            with contextlib.suppress(TimeoutError):
                received += connection.recv(65536)
            with contextlib.suppress(OSError):
                connection.sendall(b"100\r\n%s\r\n" % (b"x" * 256))
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"was not complete after" in received
    assert time.monotonic() - began >= LIMIT_SECONDS
