"""What FastAPI and Starlette find wrong before a route runs, and every other error's way to its answer."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.errors.answers import respond
from api.errors.errors import InvalidRequest, MethodNotAllowed, UnknownUrl
from api.errors.field_errors import SHOWN, FieldError, shortened
from api.errors.table import BY_CLASS


def install(app: FastAPI) -> None:
    for kind in BY_CLASS:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _parameters)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return respond(request, error)


async def _routing(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own: no such route, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    if status == 404:
        return respond(request, UnknownUrl(path))
    if status == 405:
        methods = ", ".join(sorted(request.app.state.rules.methods(request.scope["path"])))
        return respond(request, MethodNotAllowed(path, request.method, methods))
    message = f"{HTTPStatus(status).phrase}."
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request"}
    return JSONResponse({"error": body}, status, headers=dict(getattr(error, "headers", None) or {}))


async def _parameters(request: Request, error: Exception) -> JSONResponse:
    """Query and path parameters; bodies are checked by the services, together with what they refer to."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    field_errors = []
    for field_error in found:
        name = ".".join(str(part) for part in field_error["loc"][1:])
        given = shortened(repr(field_error["input"]), SHOWN)
        field_errors.append(FieldError(name, f"{name}: {field_error['msg']} (given: {given}).", "invalid_value"))
    return respond(request, InvalidRequest(field_errors))
