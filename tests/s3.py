"""An object store that speaks as much of S3 as blobs need, and judges signed URLs as S3 does.

The rules are those of "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, urlsplit

KEY_ID, SECRET = "AKTEST", "a/secret+of=the store"
SIGNATURE = "X-Amz-Signature"


@dataclass
class Store:
    """``kept``: objects by path; ``signed``: the requests that came by a signed URL, each with its headers."""

    stored: dict[str, bytes] = field(default_factory=dict)
    signed: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    def environment(self) -> dict[str, str]:
        """For obstore, beside a URL s3://bucket/prefix."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "eu-west-1",
            "AWS_ALLOW_HTTP": "true",
        }


@contextmanager
def object_store() -> Iterator[Store]:
    store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    store.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refusal(method: str, target: str, headers: dict[str, str], now: datetime) -> str | None:
    """The S3 error of a request by a signed URL; None for one that is allowed."""
    url = urlsplit(target)
    given = dict(parse_qsl(url.query, keep_blank_values=True))
    if "authorization" in headers:
        return "InvalidArgument"  # "Only one auth mechanism allowed"
    signed_at = datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if now > signed_at + timedelta(seconds=int(given["X-Amz-Expires"])):
        return "AccessDenied"
    signature = given.pop(SIGNATURE)
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(given.items()))
    names = given["X-Amz-SignedHeaders"].split(";")
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    request = "\n".join([method, url.path, query, lines, ";".join(names), "UNSIGNED-PAYLOAD"])
    key_id, _, scope = given["X-Amz-Credential"].partition("/")
    digest = hashlib.sha256(request.encode()).hexdigest()
    reported = "\n".join([given["X-Amz-Algorithm"], given["X-Amz-Date"], scope, digest])
    key = b"AWS4" + SECRET.encode()
    for part in (*scope.split("/"), reported):
        key = hmac.digest(key, part.encode(), "sha256")
    return None if key_id == KEY_ID and hmac.compare_digest(key.hex(), signature) else "SignatureDoesNotMatch"


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            store.stored[self.path] = self.rfile.read(int(self.headers["content-length"]))
            self._answer(200)

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            if SIGNATURE in self.path:
                store.signed.append((self.path, headers))
                error = refusal(self.command, self.path, headers, datetime.now(UTC))
            else:
                error = None if "authorization" in headers else "AccessDenied"
            content = store.stored.get(urlsplit(self.path).path)
            if error is not None:
                status = 400 if error == "InvalidArgument" else 403
                self._answer(status, f"<Error><Code>{error}</Code></Error>".encode())
            elif content is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            else:
                self._give(content, headers.get("range"))

        do_HEAD = do_GET  # noqa: N815 -- as the base class has it

        def _give(self, content: bytes, requested: str | None) -> None:
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", requested) if requested else None
            if span is None:
                self._answer(200, content)
                return
            start, end = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            self._answer(206, content[start : end + 1], **{"content-range": f"bytes {start}-{end}/{len(content)}"})

        def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            reported = {
                "etag": '"md5"',
                "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
                "content-length": str(len(content)),
            }
            for name, value in (reported | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    return Handler
