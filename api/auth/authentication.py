"""Bearer keys, their roles and rates, checked in front of every route before the body is read.

What is answered without a valid key is counted by address: public routes, and keys that this process does not know.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import astuple, dataclass
from urllib.parse import parse_qsl

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import Dependencies
from api.errors.answers import respond
from api.errors.errors import KeyInUrl, KeyNotSent, TooManyOpenRequests
from api.errors.rate_headers import rate_headers
from api.http.client_address import client_network
from api.http.route_rules import READ_METHODS, rule_of
from store import roles
from store.database import Sessions, read
from store.errors import InsufficientRole, InvalidKey, RateLimited
from store.roles import Role
from store.tenants import api_keys, audit, limits
from store.tenants.api_keys import PREFIX, Principal
from store.tenants.audit import Actor
from store.tenants.rate_limits import Allowance

log = structlog.get_logger()
REFUSALS = (
    *(KeyInUrl, KeyNotSent, InvalidKey, InsufficientRole, RateLimited, TooManyOpenRequests),
    *(OperationalError, PoolTimeout),
)
KEY_PARAMETERS = frozenset({"accesstoken", "apikey", "auth", "authorization", "key", "token"})
KEY_LENGTH = 40  # characters at least; no id or cursor begins as a key does


@dataclass(frozen=True)
class Admitted:
    """``allowance`` is None where no rate is counted."""

    principal: Principal
    allowance: Allowance | None


class Authentication:
    """``_open`` counts each project's requests that this process is answering."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        dependencies: Dependencies = request.app.state.dependencies
        try:
            _refuse_key_in_url(scope)
            needed = rule_of(scope).role
            admitted = await self._admitted(dependencies, request, needed) if needed is not None else None
            if admitted is None:
                await _count_address(dependencies, scope)
        except REFUSALS as error:
            await respond(request, error)(scope, receive, send)
            return
        if admitted is None:
            await self._app(scope, receive, send)
        else:
            await self._answer(admitted, scope, receive, send)

    async def _admitted(self, dependencies: Dependencies, request: Request, needed: Role) -> Admitted:
        admitted = await _admitted(dependencies, request)
        request.scope["state"]["principal"] = admitted.principal
        await _note_address(dependencies, request.scope, admitted.principal)
        roles.require(admitted.principal.role, needed)
        if self._open[admitted.principal.project_id] >= dependencies.settings.requests_at_once:
            raise TooManyOpenRequests(dependencies.settings.requests_at_once)
        return admitted

    async def _answer(self, admitted: Admitted, scope: Scope, receive: Receive, send: Send) -> None:
        headers = rate_headers(*astuple(admitted.allowance)) if admitted.allowance else {}

        async def send_with_rate(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        project_id = admitted.principal.project_id
        self._open[project_id] += 1
        try:
            await self._app(scope, receive, send_with_rate)
        finally:
            self._open[project_id] -= 1
            if not self._open[project_id]:
                del self._open[project_id]


def _refuse_key_in_url(scope: Scope) -> None:
    """Whatever the parameter is called: a value in the form of a key is one."""
    if not scope["query_string"]:
        return
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        plain = name.lower().replace("-", "").replace("_", "")
        if _is_like_a_key(name):
            raise KeyInUrl("without a value")
        if plain in KEY_PARAMETERS or _is_like_a_key(value):
            raise KeyInUrl(name[:KEY_LENGTH])


def _is_like_a_key(text: str) -> bool:
    return text.strip().startswith(PREFIX) and len(text.strip()) >= KEY_LENGTH


def _bearer(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise KeyNotSent
    return secret.strip()


async def _admitted(dependencies: Dependencies, request: Request) -> Admitted:
    """A polling client's requests mostly need neither database nor broker, and so no thread. A write queries the
    database for its key each time."""
    try:
        secret = _bearer(request)
    except KeyNotSent:
        await _count_address(dependencies, request.scope)
        raise
    started_at = time.monotonic()
    principals = dependencies.principals
    principal = principals.get(secret) if request.method in READ_METHODS else None
    if principal is None:
        if not principals.was_valid(secret):  # else nobody else at its address can shut it out
            await _count_address(dependencies, request.scope)
        try:
            principal = await run_in_threadpool(_find, dependencies, secret)
        except InvalidKey:
            principals.forget(secret)
            raise
        principals.remember(secret, principal, started_at)
    if principal.limits.requests_per_minute is None:
        return Admitted(principal, None)
    allowance = dependencies.buckets.take_reserved(principal.key_id, principal.limits)
    if allowance is None:
        allowance = await run_in_threadpool(dependencies.buckets.take, principal.key_id, principal.limits)
    return Admitted(principal, allowance)


async def _count_address(dependencies: Dependencies, scope: Scope) -> None:
    """Raises RateLimited. Only every so many requests of an address need the broker, and so a thread."""
    per_minute = dependencies.settings.anonymous_per_minute
    if per_minute is not None:
        network = client_network(scope)
        if not dependencies.buckets.take_reserved_for_address(network, per_minute):
            await run_in_threadpool(dependencies.buckets.take_for_address, network, per_minute)


async def _note_address(dependencies: Dependencies, scope: Scope, principal: Principal) -> None:
    """The first use of a key from an address goes to the audit log."""
    network, known = client_network(scope), dependencies.key_addresses
    if not known.is_known(principal.key_id, network):
        actor = Actor(principal.project_id, key_id=principal.key_id, address=network)
        if await run_in_threadpool(_record_address, dependencies.sessions, actor):
            known.remember(principal.key_id, network)


def _record_address(sessions: Sessions, actor: Actor) -> bool:
    """Whether that was possible: a read succeeds on a database that takes no writes."""
    try:
        with sessions.begin() as session:
            audit.record_address(session, actor)
    except (DBAPIError, PoolTimeout) as error:
        log.warning("key.address_not_noted", key=actor.key_id, reason=str(error).partition("\n")[0])
        return False
    return True


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
