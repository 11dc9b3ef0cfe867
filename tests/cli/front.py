"""A reverse proxy in front of a live API, which does to requests what networks and proxies do to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

Fate = Literal["pass", "drop", "lose", "busy"]
STORED = ("authorization", "content-type", "idempotency-key")


class Front:
    """``fates`` are those of the next requests, one each; what comes after them passes.

    drop: the connection ends before the API saw the request; lose: after it answered; busy: 503, as a proxy says it.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.fates: list[Fate] = []
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                front.requests.append(f"{self.command} {self.path}")
                fate = front.fates.pop(0) if front.fates else "pass"
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if fate in ("pass", "lose"):
                    headers = {name: self.headers[name] for name in STORED if name in self.headers}
                    answer = httpx.request(
                        self.command, front.target + self.path, content=body, headers=headers, timeout=60
                    )
                    if fate == "pass":
                        self._send(answer.status_code, answer.content)
                elif fate == "busy":
                    self._send(503, b"<h1>Service Unavailable</h1>")

            do_POST = do_GET  # noqa: N815 -- as the base class has it

            def _send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        return Handler


@contextmanager
def in_front_of(url: str) -> Iterator[Front]:
    front = Front(url)
    try:
        yield front
    finally:
        front.close()
