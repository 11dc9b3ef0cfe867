"""A hub on loopback: repositories in memory, served by the API that huggingface_hub speaks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """``files`` by repository and name. ``sent`` has the names of the files whose content was asked for."""

    files: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    port: int = 0

    def tree(self, repository: str) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha256(content).hexdigest()[:40]}
            for name, content in self.files[repository].items()
        ]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path).removeprefix("/")
            for repository, files in hub.files.items():
                if path.startswith(f"api/models/{repository}/tree/{REVISION}"):
                    return self.respond(json.dumps(hub.tree(repository)).encode(), {}, with_body=with_body)
                prefix = f"{repository}/resolve/{REVISION}/"
                if path.startswith(prefix) and path.removeprefix(prefix) in files:
                    name = path.removeprefix(prefix)
                    if with_body:
                        hub.sent.append(name)
                    content = files[name]
                    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": REVISION}
                    return self.respond(content, headers, with_body=with_body)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def respond(self, content: bytes, headers: Mapping[str, str], *, with_body: bool) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
