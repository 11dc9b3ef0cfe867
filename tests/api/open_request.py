"""Requests whose bodies stay open: on a real socket, by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.api.serving import Live

START = (
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
)
START_OF_PART = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'


@contextmanager
def request(live: Live, path: str, *headers: str, key: str | None = None) -> Iterator[socket.socket]:
    """An open connection on which the head of a POST was sent, and nothing else."""
    given = [f"authorization: Bearer {key}"] if key else []
    head = [f"POST {path} HTTP/1.1", "host: x", "content-type: multipart/form-data; boundary=x", *given, *headers]
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        yield connection


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and error code of an answer that comes while the request's body is still open."""
    received = b""
    while b"\r\n\r\n" not in received or b"}}" not in received:
        more = connection.recv(65536)
        assert more, f"closed without an answer in our shape: {received!r}"
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def uploads(live: Live) -> list[Path]:
    return list((live.home / "uploads").iterdir())
