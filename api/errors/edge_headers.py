"""The headers that every answer carries, also one that no route has made."""

from __future__ import annotations

from starlette.types import Scope

# The API answers with data alone: nothing in it may load, run or be framed when a browser shows it.
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def edge_headers(scope: Scope) -> dict[str, str]:
    request_id = scope.get("state", {}).get("request_id", "")
    return SECURITY_HEADERS | {"x-request-id": request_id}
