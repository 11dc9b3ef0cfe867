"""The outermost layer: a request id on each answer and log line, the headers that every answer carries, the figures."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors.edge_headers import edge_headers
from api.http.client_address import client_address
from api.http.request_metrics import RequestMetrics

log = structlog.get_logger()
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LOGGED_PATH = 256  # characters; no route of ours has a longer path
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """``requests`` counts each request when its answer has been sent."""

    def __init__(self, app: ASGIApp, requests: RequestMetrics) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        self._requests.in_flight.inc()
        started = time.perf_counter()
        status = 500  # what the client gets when the layers below raise instead of answering

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(edge_headers(scope))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._requests.in_flight.dec()
            seconds = round(time.perf_counter() - started, 6)
            self._requests.answered(_method(scope), _route(scope), status, seconds)
            log.info(
                "request",
                method=_method(scope),
                path=scope["path"][:LOGGED_PATH],  # without the query, which may hold what no log should
                status=status,
                seconds=seconds,
                client=client_address(scope),
                **_caller(scope),
            )


def _caller(scope: Scope) -> dict[str, str | None]:
    """Whose request it is; of one without a valid key, nobody's."""
    principal = scope["state"].get("principal")
    return {"key": principal.key_id if principal else None, "project": principal.project_id if principal else None}


def _method(scope: Scope) -> str:
    """Anything may stand in a request; the figures know the usual ones."""
    method: str = scope["method"]
    return method if method in KNOWN_METHODS else "other"


def _route(scope: Scope) -> str:
    """Its template; one name for all that no route has answered, a rejected key and an unknown path."""
    return getattr(scope.get("route"), "path", "none")


def _request_id(scope: Scope) -> str:
    """The client's own when it is harmless in a header and a log; otherwise a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
