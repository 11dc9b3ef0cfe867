"""Pages of other origins: none may call the API unless the operator names theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SENT = ("authorization", "content-type", "idempotency-key", "if-none-match", "last-event-id", "range", "x-request-id")
SHOWN = ("content-disposition", "content-range", "etag", "retry-after", "x-request-id")
RATE = ("limit", "remaining", "reset")
PREFLIGHT_SECONDS = 600  # how long a browser remembers the answer to a preflight


def cross_origin(origins: Sequence[str]) -> dict[str, Any]:
    """Of Starlette's CORSMiddleware. No cookies: a page has to hold a key, as every other client does."""
    return {
        "allow_origins": list(origins),
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": list(SENT),
        "expose_headers": [*SHOWN, *(f"x-ratelimit-{figure}-requests" for figure in RATE)],
        "max_age": PREFLIGHT_SECONDS,
    }
