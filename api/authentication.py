"""Bearer keys, checked in front of everything under /v1 and before any of the body is read."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import respond
from store import keys
from store.database import Sessions
from store.errors import InvalidKey
from store.keys import Principal


class Authentication:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not guarded(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            secret = _bearer(request)
            principal = await run_in_threadpool(_principal, request.app.state.backends.sessions, secret)
        except (InvalidKey, OperationalError, PoolTimeout) as error:
            await respond(request, error)(scope, receive, send)
            return
        scope["state"]["principal"] = principal
        await self._app(scope, receive, send)


def guarded(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


def _bearer(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise InvalidKey
    return secret.strip()


def _principal(sessions: Sessions, secret: str) -> Principal:
    with sessions() as session:
        return keys.authenticate(session, secret)
