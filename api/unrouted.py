"""What FastAPI and Starlette find wrong before a route runs, and every other error's way to its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route

from api.answers import ANSWERS, respond
from api.errors import InvalidRequest
from api.faults import Fault


def install(app: FastAPI) -> None:
    for kind in ANSWERS:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _parameters)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return respond(request, error)


async def _routing(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own: no such route, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    message, code = f"{HTTPStatus(status).phrase}.", "invalid_request"
    if status == 404:
        message, code = f"There is no {request.url.path}; /openapi.json lists what there is.", "unknown_url"
    elif status == 405:
        allowed = _methods(request)
        headers = {**headers, "Allow": allowed}
        message, code = f"{request.url.path} takes {allowed}, not {request.method}.", "method_not_allowed"
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": body}, status, headers=headers)


def path_methods(routers: Iterable[APIRouter]) -> list[tuple[re.Pattern[str], set[str]]]:
    """What each route takes; Starlette's own answer names the methods of one route of a path alone."""
    routes = (route for router in routers for route in router.routes if isinstance(route, Route | APIRoute))
    return [(route.path_regex, route.methods or set()) for route in routes]


def _methods(request: Request) -> str:
    taken = [methods for path, methods in request.app.state.methods if path.match(request.scope["path"])]
    return ", ".join(sorted(set().union(*taken)))


async def _parameters(request: Request, error: Exception) -> JSONResponse:
    """Query and path parameters; bodies are checked by the services, together with what they refer to."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    faults = []
    for fault in found:
        name = ".".join(str(part) for part in fault["loc"][1:])
        faults.append(Fault(name, f"{name}: {fault['msg']} (given: {fault['input']!r}).", "invalid_value"))
    return respond(request, InvalidRequest(faults))
