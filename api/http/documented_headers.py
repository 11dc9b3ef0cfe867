"""The headers of answers in the OpenAPI document: on which answers they are, and what they say."""

from __future__ import annotations

from typing import Any

from api.errors.example_ids import SHA256
from api.errors.table import ROWS

Header = dict[str, Any]


def _text(description: str, example: str, *, always: bool = False) -> Header:
    """``always``: on every answer that names it."""
    found = {"description": description, "schema": {"type": "string"}, "example": example}
    return found | {"required": True} if always else found


_RATES = ("limit", "remaining", "reset")
HEADERS: dict[str, Header] = {
    "x-request-id": _text(
        "The request's own if it sent a plain one, else a new one; the server's log lines carry it.",
        "req-5f0e0a8a3f8b4a0e9c1f5d2b7a6c4e10",
        always=True,
    ),
    "x-ratelimit-limit-requests": _text("Requests that the key may send at once; of a key with a rate.", "300"),
    "x-ratelimit-remaining-requests": _text("How many of them are left.", "299"),
    "x-ratelimit-reset-requests": _text("Until as many may be sent again.", "50ms"),
    "www-authenticate": _text("How to authenticate.", "Bearer", always=True),
    "retry-after": _text("Seconds after which the request may be sent again.", "1"),
    "x-should-retry": _text("`false` where sending the request again changes nothing; the openai SDK obeys.", "false"),
    "idempotent-replayed": _text("`true` on the answer that this idempotency key got before.", "true"),
    "etag": _text("Of the content: its SHA-256.", f'"{SHA256}"', always=True),
    "accept-ranges": _text("Ranges of the content may be requested.", "bytes", always=True),
    "cache-control": _text("No cache that others use may keep it.", "private, no-cache", always=True),
    "content-disposition": _text("The file's name (RFC 6266).", 'attachment; filename="pairs.zip"', always=True),
    "location": _text(
        "A signed URL; it holds for five minutes.",
        f"https://bucket.s3.us-east-1.amazonaws.com/sha256/{SHA256[:2]}/{SHA256}?X-Amz-Expires=300",
        always=True,
    ),
    "content-range": _text("Which bytes of how many.", "bytes 0-1023/62113764", always=True),
}


def _of_errors() -> dict[str, set[str]]:
    """By status, the headers that errors of the table are answered with."""
    found: dict[str, set[str]] = {}
    for row in ROWS:
        found.setdefault(str(row.status), set()).update(row.headers_of(row.sample).keys() & HEADERS.keys())
    return found


OF_STATUS = _of_errors()


def named(*names: str) -> dict[str, Any]:
    """The part of a response's description that lists its headers."""
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


def add_headers(operation: dict[str, Any], *, needs_key: bool) -> None:
    """Those that follow from the status and from what the operation takes; its route has named its own."""
    takes_key = any(one["name"] == "idempotency-key" for one in operation.get("parameters", []))
    for status, response in operation["responses"].items():
        names = ["x-request-id", *OF_STATUS.get(status, ())]
        if needs_key and status != "401":
            names += [f"x-ratelimit-{figure}-requests" for figure in _RATES]
        if takes_key and status.startswith("2"):
            names.append("idempotent-replayed")
        response["headers"] = named(*names)["headers"] | response.get("headers", {})
