"""Caps on request bodies: by the length that is declared, and by the bytes that really come."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestTooLarge, respond

JSON_LIMIT = 1024 * 1024  # a create request with 16 full metadata pairs is under 20 KiB
FORM_OVERHEAD = 64 * 1024  # boundaries, part headers and fields around an uploaded file


class BodyLimit:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _limit(scope)
        if _declared(scope) > limit:
            await respond(Request(scope), RequestTooLarge(limit))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise RequestTooLarge(limit)
            return message

        await self._app(scope, counted, send)


def _limit(scope: Scope) -> int:
    if scope["path"] == "/v1/files":
        largest: int = scope["app"].state.backends.settings.max_upload_bytes
        return largest + FORM_OVERHEAD
    return JSON_LIMIT


def _declared(scope: Scope) -> int:
    """0 for a length that is absent or no number: the bytes are counted anyway."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0
