"""The rule of each route: the role that it needs and how long its body may be. Both stand on the route itself.

The authentication and the body limit read the rule before any of the body is read. A route without a rule gets the
strictest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import Scope

from store.roles import Role
from store.settings import Settings

READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
JSON_LIMIT = 256 * 1024  # a create request with 16 full metadata pairs is under 20 KiB
FORM_OVERHEAD = 64 * 1024  # boundaries, part headers and fields around an uploaded file

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
MaxBody = Callable[[Settings], int]


def _json_limit(_: Settings) -> int:
    return JSON_LIMIT


@dataclass(frozen=True)
class RouteRule:
    """``role`` is None for a route that needs no key. ``max_body`` gives bytes."""

    role: Role | None
    max_body: MaxBody = _json_limit


STRICTEST = RouteRule(Role.ADMIN)
PUBLIC = RouteRule(None)


def requires(role: Role, *, max_body: MaxBody = _json_limit) -> Callable[[Endpoint], Endpoint]:
    """Decorate an endpoint, below its route: ``@router.post(...)``, then ``@requires(Role.MEMBER)``."""
    return _mark(RouteRule(role, max_body))


def public(endpoint: Endpoint) -> Endpoint:
    """Decorate an endpoint that answers without a key."""
    return _mark(PUBLIC)(endpoint)


def form_of(max_file: MaxBody) -> MaxBody:
    """The limit of a form with a file of at most ``max_file`` bytes."""
    return lambda settings: max_file(settings) + FORM_OVERHEAD


def declared_rule(route: Route | APIRoute) -> RouteRule | None:
    found: RouteRule | None = getattr(route.endpoint, "route_rule", None)
    return found


def rule_of(scope: Scope) -> RouteRule:
    """The rule of a request. It is found once and stays in the request's state."""
    state = scope["state"]
    if "rule" not in state:
        state["rule"] = scope["app"].state.rules.of(scope["method"], scope["path"])
    found: RouteRule = state["rule"]
    return found


def under_v1(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/")


class RouteRules:
    """The rules of an application's routes, and of requests that no route answers."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._routes = [route for router in routers for route in router.routes if isinstance(route, Route | APIRoute)]

    def of(self, method: str, path: str) -> RouteRule:
        for route in self._at(path):
            if method in (route.methods or ()):
                return declared_rule(route) or STRICTEST
        return self._unrouted(method, path)

    def methods(self, path: str) -> set[str]:
        """All methods that a path takes; Starlette's own answer names those of one of its routes."""
        return set().union(*(route.methods or () for route in self._at(path)))

    def _at(self, path: str) -> Iterator[Route | APIRoute]:
        return (route for route in self._routes if route.path_regex.match(path))

    def _unrouted(self, method: str, path: str) -> RouteRule:
        """No key outside /v1. Under it, a write needs the strictest role of the resource, a member's at least."""
        if not under_v1(path):
            return PUBLIC
        if method in READ_METHODS:
            return RouteRule(Role.READ_ONLY)
        resource = _resource(path)
        rules = (declared_rule(route) or STRICTEST for route in self._routes if _resource(route.path) == resource)
        roles = [Role.MEMBER, *(rule.role for rule in rules if rule.role is not None)]
        return RouteRule(max(roles, key=list(Role).index))


def _mark(rule: RouteRule) -> Callable[[Endpoint], Endpoint]:
    def mark(endpoint: Endpoint) -> Endpoint:
        vars(endpoint)["route_rule"] = rule
        return endpoint

    return mark


def _resource(path: str) -> list[str]:
    """``/v1/webhooks`` of ``/v1/webhooks/whook-1/rotate``, in parts."""
    return path.split("/")[:3]
