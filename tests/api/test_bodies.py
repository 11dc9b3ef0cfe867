"""Bodies that are too long, lie about it, or stop half way; on real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from api.files.receive import prepare_directory, temporary
from api.http.route_rules import JSON_LIMIT
from store.settings import REPOSITORY
from tests.api.open_request import START, answer, request, uploads
from tests.api.polling import until
from tests.api.serving import MAX_UPLOAD, Live, serving

pytestmark = pytest.mark.integration


def test_without_a_key_the_body_is_not_waited_for(live: Live) -> None:
    with request(live, "/v1/files", f"content-length: {5 * 10**9}") as connection:
        assert answer(connection) == (401, "invalid_api_key")
    with request(live, "/v1/files", "transfer-encoding: chunked", key="pt-wrong") as connection:
        assert answer(connection) == (401, "invalid_api_key")
    with request(live, "/v1/files", f"content-length: {5 * 10**9}", "expect: 100-continue") as connection:
        assert answer(connection) == (401, "invalid_api_key")  # and no "100 Continue" before it
    assert uploads(live) == []


def test_a_declared_length_over_the_cap_is_refused_unread(live: Live) -> None:
    with request(live, "/v1/files", f"content-length: {5 * 10**9}", key=live.tenant.api_key) as connection:
        assert answer(connection) == (413, "request_too_large")
    job = "/v1/fine_tuning/jobs"
    with request(live, job, f"content-length: {JSON_LIMIT + 1}", key=live.tenant.api_key) as connection:
        assert answer(connection) == (413, "request_too_large")


def test_a_chunked_upload_is_cut_off_at_the_cap_and_leaves_nothing(live: Live) -> None:
    with request(live, "/v1/files", "transfer-encoding: chunked", key=live.tenant.api_key) as connection:
        for chunk in (START, b"x" * MAX_UPLOAD, b"x" * 100_000):
            connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        assert answer(connection) == (413, "request_too_large")
    until(lambda: uploads(live) == [])


def test_a_chunked_json_body_is_cut_off_at_its_cap(live: Live) -> None:
    headers = ("transfer-encoding: chunked",)
    with request(live, "/v1/fine_tuning/jobs", *headers, key=live.tenant.api_key) as connection:
        chunk = b" " * (JSON_LIMIT + 1)
        connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        assert answer(connection) == (413, "request_too_large")


def test_an_aborted_upload_leaves_no_temporary_file(live: Live) -> None:
    with request(live, "/v1/files", "content-length: 200000", key=live.tenant.api_key) as connection:
        connection.sendall(START + b"x" * 50_000)
        until(lambda: len(uploads(live)) == 1)
    until(lambda: uploads(live) == [])


def test_a_connection_survives_a_refused_upload(live: Live) -> None:
    """The 401 comes before the body; what the client has sent by then is not taken for its next request."""
    body = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    with request(live, "/v1/files", f"content-length: {len(body)}") as connection:
        assert answer(connection)[0] == 401
        connection.sendall(body + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        rest = b"".join(iter(lambda: connection.recv(65536), b""))
    assert rest.count(b"HTTP/1.1 ") == 1
    assert b'{"status":"ok"}' in rest


def test_what_a_killed_process_left_is_swept_at_the_start_and_what_is_being_received_is_not(tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    with temporary(tmp_path) as receiving:
        prepare_directory(tmp_path)
        assert list(tmp_path.iterdir()) == [receiving]
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_made_while_another_process_sweeps_are_their_makers(tmp_path: Path) -> None:
    sweep = f"from pathlib import Path\nfrom {prepare_directory.__module__} import prepare_directory\n"
    sweep += f"print(flush=True)\nwhile True: prepare_directory(Path({str(tmp_path)!r}))"
    sweeper = subprocess.Popen([sys.executable, "-c", sweep], cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert sweeper.stdout is not None
        sweeper.stdout.readline()  # it has begun
        for _ in range(5000):
            with temporary(tmp_path) as path:
                assert path.exists()
    finally:
        sweeper.kill()
        sweeper.communicate()
    assert list(tmp_path.iterdir()) == []


def test_an_api_that_was_killed_in_an_upload_leaves_nothing_after_its_restart(
    tmp_path: Path, postgres_url: str, valkey_url: str
) -> None:
    with serving(tmp_path, postgres_url, valkey_url) as killed:
        with request(killed, "/v1/files", "content-length: 200000", key=killed.tenant.api_key) as connection:
            connection.sendall(START + b"x" * 50_000)
            until(lambda: len(uploads(killed)) == 1)
            os.kill(killed.pid, signal.SIGKILL)
        assert len(uploads(killed)) == 1
    with serving(tmp_path, postgres_url, valkey_url) as restarted:
        assert uploads(restarted) == []
