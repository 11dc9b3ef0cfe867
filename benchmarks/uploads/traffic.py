"""A client that sends a given number of bytes, made on the fly; and the memory of the server that takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

BLOCK = 2**20  # bytes a write
PART = 64 * BLOCK  # what OpenAI's SDK sends
BOUNDARY = "pairtune-traffic"


@dataclass(frozen=True)
class Server:
    port: int
    pid: int
    key: str


def send_directly(server: Server, size: int, fill: int) -> str:
    """One form of ``size`` bytes, each of them ``fill``; returns the file's id."""
    purpose = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    return str(_send_form(server, "/v1/files", "file", size, fill, purpose.encode())["id"])


def send_in_parts(server: Server, size: int, fill: int) -> str:
    """The same in parts of 64 MiB, one after the other."""
    declared = {"filename": "a.zip", "bytes": size, "mime_type": "application/zip", "purpose": "fine-tune"}
    upload = f"/v1/uploads/{_send_json(server, '/v1/uploads', declared)['id']}"
    parts = [
        _send_form(server, f"{upload}/parts", "data", min(PART, size - start), fill)["id"]
        for start in range(0, size, PART)
    ]
    return str(_send_json(server, f"{upload}/complete", {"part_ids": parts})["file"]["id"])


def restart_peak(server: Server) -> int:
    """Make the peak of the server's resident memory what it holds now; returns that, in bytes."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # proc(5)
    return peak(server)


def peak(server: Server) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


def _send_form(server: Server, path: str, name: str, size: int, fill: int, before: bytes = b"") -> Any:
    head = before + (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.zip"\r\n\r\n'.encode()
    )
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        block = bytes([fill]) * BLOCK
        yield head
        for start in range(0, size, BLOCK):
            yield block[: size - start]
        yield tail

    headers = {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "content-length": str(len(head) + size + len(tail)),
    }
    return _post(server, path, body(), headers)


def _send_json(server: Server, path: str, document: object) -> Any:
    return _post(server, path, json.dumps(document).encode(), {"content-type": "application/json"})


def _post(server: Server, path: str, body: Any, headers: dict[str, str]) -> Any:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", path, body, headers | {"authorization": f"Bearer {server.key}"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return json.loads(content)
