"""One client's connection: uvicorn's, with limits on everything that the application itself never sees.

The application sees a request once its head is complete, and nothing of it once it is answered. Before, between and
after, the limits here hold: of a head's bytes and time, of the rest of a body that was answered early, of a client
that does not read its answer, and of the number of connections.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.errors.edge_headers import SECURITY_HEADERS
from store.settings import settings

MAX_HEAD_BYTES = 64 * 1024  # as h11, nginx and Apache allow, or more
CLOSING_SECONDS = 5.0  # for the last bytes of a refusal to leave
HEAD_TOO_LARGE = (431, "head_too_large", f"The request's head is larger than the limit of {MAX_HEAD_BYTES} bytes.")
NO_HTTP = (400, "invalid_http", "The request is not valid HTTP.")
FULL = (503, "too_many_connections", "Every connection of this server is in use; try again in a moment.")


class HeadTooLarge(Exception):
    """The parser ends at it; ``send_400_response`` then has the answer."""


class LimitedConnection(HttpToolsProtocol):
    """``_unparsed`` are the bytes since the parser last passed something on: of a head, a chunk's extension, a trailer.

    Of ``_timer`` there is at most one, for what the client has to do next.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = settings()
        self._unparsed = 0
        self._in_head, self._in_body = True, False
        self._head_too_large, self._refused = False, False
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self.waiting_since = self.loop.time()

    @property
    def waits_for_a_request(self) -> bool:
        return self._in_head and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections and not self._close_another():
            self._refuse(*FULL)
            return
        self._start_timer(self._limits.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_unread_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._unparsed += len(data)
        if self._in_head and self._timer is None:
            self._start_timer(self._limits.head_seconds, self._head_is_late)
        super().data_received(data)
        if self._unparsed > MAX_HEAD_BYTES and not self._refused:
            self._refuse(*HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head > MAX_HEAD_BYTES:
            self._head_too_large = True
            raise HeadTooLarge
        self._unparsed = 0
        self._in_head, self._in_body = False, True
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        self._in_head, self._in_body = True, False
        self.waiting_since = self.loop.time()
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.waiting_since = self.loop.time()
        if self._in_body:  # answered early: the rest is read and dropped, for a while
            self._start_timer(self._limits.upload_idle_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_unread_timer()
        self._unread_timer = self.loop.call_later(self._limits.download_idle_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - of uvicorn
        """In our shape. uvicorn calls it when the parser has failed, also because a head is too large."""
        self._refuse(*(HEAD_TOO_LARGE if self._head_too_large else NO_HTTP))

    def _head_is_late(self) -> None:
        if self._unparsed:
            seconds = f"{self._limits.head_seconds:g}"
            self._refuse(408, "request_timeout", f"The request's head was not complete within {seconds} seconds.")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer without the application and close. An answer that is under way to a whole request is ended first."""
        self._stop_timer()
        self._refused = True
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self._in_body:
            self.cycle.keep_alive = False
            return
        if not answering or not self.cycle.response_started:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
            headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
            lines = [f"{name}: {value}\r\n".encode() for name, value in (headers | SECURITY_HEADERS).items()]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)

    def _close_another(self) -> bool:
        """Close the connection that has waited longest for its client's request: one that works sends it at once."""
        others = (cast("LimitedConnection", other) for other in self.connections if other is not self)
        waiting = [other for other in others if other.waits_for_a_request]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda other: other.waiting_since)
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    def _start_timer(self, seconds: float, then: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
