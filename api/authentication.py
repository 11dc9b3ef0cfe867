"""Bearer keys and their roles, checked in front of everything under /v1 and before any of the body is read."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import respond
from api.roles import needed_role
from store import keys, roles
from store.database import Sessions
from store.errors import InsufficientRole, InvalidKey
from store.keys import Principal

log = structlog.get_logger()


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
            roles.require(principal.role, needed_role(request.method, scope["path"]))
        except (InvalidKey, InsufficientRole, OperationalError, PoolTimeout) as error:
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
        principal = keys.authenticate(session, secret)
    if not principal.use_is_noted:
        _note_use(sessions, principal.key_id)
    return principal


def _note_use(sessions: Sessions, key_id: str) -> None:
    """A database that takes no writes, full or a standby, is no reason to refuse a request that only reads."""
    try:
        with sessions.begin() as session:
            keys.note_use(session, key_id)
    except OperationalError as error:
        log.warning("key.use_not_noted", key=key_id, reason=str(error.orig))
