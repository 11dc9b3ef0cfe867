"""Limits of request bodies: of their declared length, of the bytes that are received, and of the time they take."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors.answers import respond
from api.errors.errors import RequestTimeout, RequestTooLarge, RequestTooLong
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
        received, whole, pace = 0, False, Pace(settings)

        async def counted() -> Message:
            nonlocal received, whole
            # After the body there is only the client's going away to wait for, and no end to that.
            message = await receive() if whole else await pace.next_of(receive)
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > limit:
                raise RequestTooLarge(limit)
            return message

        await self._app(scope, counted, send)


class Pace:
    """How fast a body has to arrive: at a least rate over each stretch of time that the server waits for it, and as a
    whole within a limit. The time in which the server does not read, because its disk is slow, is not the client's.
    """

    def __init__(self, settings: Settings) -> None:
        self._stretch = settings.upload_idle_seconds
        self._wanted = max(1, int(settings.upload_bytes_per_second * self._stretch))
        self._limit = settings.upload_limit_seconds
        self._began_at = time.monotonic()
        self._waited, self._received = 0.0, 0  # in this stretch

    async def next_of(self, receive: Receive) -> Message:
        """Raises RequestTimeout, RequestTooLong."""
        waits_from = time.monotonic()
        of_stretch, of_body = self._stretch - self._waited, self._began_at + self._limit - waits_from
        try:
            async with asyncio.timeout(max(0.0, min(of_stretch, of_body))):
                message = await receive()
        except TimeoutError as error:
            if of_body <= of_stretch:
                raise RequestTooLong(self._limit) from error
            raise RequestTimeout(self._stretch, self._received, self._wanted) from error
        self._waited += time.monotonic() - waits_from
        self._received += len(message.get("body", b""))
        if self._received >= self._wanted:
            self._waited, self._received = 0.0, 0
        return message


def _declared(scope: Scope) -> int:
    """0 for a length that is absent or no number: the bytes are counted anyway."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0
