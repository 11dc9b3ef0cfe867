"""Limits of request bodies: of the declared length, of the bytes that are received, and of the time between them."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors.answers import respond
from api.errors.errors import RequestTimeout, RequestTooLarge
from api.http.route_rules import rule_of
from store.settings import Settings


class BodyLimit:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings: Settings = scope["app"].state.dependencies.settings
        limit = rule_of(scope).max_body(settings)
        if _declared(scope) > limit:
            await respond(Request(scope), RequestTooLarge(limit))(scope, receive, send)
            return
        received, whole = 0, False

        async def counted() -> Message:
            nonlocal received, whole
            # After the body there is only the client's going away to wait for, and no end to that.
            message = await receive() if whole else await _in_time(receive, settings.upload_idle_seconds)
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > limit:
                raise RequestTooLarge(limit)
            return message

        await self._app(scope, counted, send)


async def _in_time(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError as error:
        raise RequestTimeout(seconds) from error


def _declared(scope: Scope) -> int:
    """0 for a length that is absent or no number: the bytes are counted anyway."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0
