"""Bearer keys, their roles and rates, checked in front of every route but public ones, before the body is read."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import Dependencies
from api.errors.answers import respond
from api.errors.errors import KeyNotSent
from api.errors.rate_headers import rate_headers
from api.http.route_rules import READ_METHODS, rule_of
from store import roles
from store.database import Sessions, read
from store.errors import InsufficientRole, InvalidKey, RateLimited
from store.tenants import api_keys, limits
from store.tenants.api_keys import Principal
from store.tenants.rate_limits import Allowance

log = structlog.get_logger()
REFUSALS = (KeyNotSent, InvalidKey, InsufficientRole, RateLimited, OperationalError, PoolTimeout)


@dataclass(frozen=True)
class Admitted:
    """``allowance`` is None where no rate is counted."""

    principal: Principal
    allowance: Allowance | None


class Authentication:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = rule_of(scope).role if scope["type"] == "http" else None
        if needed is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            secret = _bearer(request)
            admitted = await _admitted(request.app.state.dependencies, secret, request.method in READ_METHODS)
            roles.require(admitted.principal.role, needed)
        except REFUSALS as error:
            await respond(request, error)(scope, receive, send)
            return
        scope["state"]["principal"] = admitted.principal
        headers = rate_headers(*astuple(admitted.allowance)) if admitted.allowance else {}

        async def send_with_rate(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_rate)


def _bearer(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise KeyNotSent
    return secret.strip()


async def _admitted(dependencies: Dependencies, secret: str, reads: bool) -> Admitted:
    """A polling client's requests mostly need neither database nor broker, and so no thread. A write queries the
    database for its key each time."""
    started_at = time.monotonic()
    principal = dependencies.principals.get(secret) if reads else None
    if principal is None:
        principal = await run_in_threadpool(_find, dependencies, secret)
        dependencies.principals.remember(secret, principal, started_at)
    if principal.limits.requests_per_minute is None:
        return Admitted(principal, None)
    allowance = dependencies.buckets.take_reserved(principal.key_id, principal.limits)
    if allowance is None:
        allowance = await run_in_threadpool(dependencies.buckets.take, principal.key_id, principal.limits)
    return Admitted(principal, allowance)


def _find(dependencies: Dependencies, secret: str) -> Principal:
    deployment = limits.defaults(dependencies.settings)
    principal = read(dependencies.reader, lambda connection: api_keys.authenticate(connection, secret, deployment))
    if not principal.use_is_noted:
        _note_use(dependencies.sessions, principal.key_id)
    return principal


def _note_use(sessions: Sessions, key_id: str) -> None:
    """A read succeeds on a database that takes no writes, because it is full or a standby."""
    try:
        with sessions.begin() as session:
            api_keys.note_use(session, key_id)
    except OperationalError as error:
        log.warning("key.use_not_noted", key=key_id, reason=str(error.orig))
