"""A multipart upload, streamed to a temporary file: memory stays small and nothing stays behind."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from api.errors import InvalidRequest
from api.faults import Fault
from api.files.form import Form

BLOCK = 1024 * 1024  # bytes gathered before a write, so that a thread is not woken for every packet
STALE = 24 * 3600.0  # seconds; no upload lasts so long, so an older file was left by a process that was killed


@dataclass(frozen=True)
class Received:
    """The file part's bytes in ``path``, the name that it came with, and the other fields."""

    path: Path
    filename: str | None
    fields: dict[str, str]
    faults: tuple[Fault, ...]


@asynccontextmanager
async def received(request: Request, directory: Path) -> AsyncIterator[Received]:
    """Read the request's form; the temporary file lives as long as this context, whatever happens."""
    form = Form()
    parser = _parser(request, form)
    handle, name = await run_in_threadpool(tempfile.mkstemp, dir=directory)
    try:
        with os.fdopen(handle, "wb") as out:
            await _stream(request, parser, form, out)
        if not form.complete:
            raise InvalidRequest([Fault(None, "The form ends before its closing boundary.", "invalid_form")])
        yield Received(Path(name), form.filename, form.fields, tuple(form.faults))
    finally:
        Path(name).unlink()


def prepare_directory(directory: Path) -> None:
    """Make the directory and remove what killed processes left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if time.time() - path.stat().st_mtime > STALE:
            path.unlink(missing_ok=True)


def _parser(request: Request, form: Form) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest([Fault(None, "Send multipart/form-data with the parts file and purpose.", "invalid_form")])
    try:
        return MultipartParser(boundary, form.callbacks())
    except FormParserError as error:
        raise InvalidRequest([Fault(None, f"The form cannot be read: {error}.", "invalid_form")]) from error


async def _stream(request: Request, parser: MultipartParser, form: Form, out: IO[bytes]) -> None:
    async for chunk in request.stream():
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest([Fault(None, f"The form cannot be read: {error}.", "invalid_form")]) from error
        if len(form.pending) >= BLOCK:
            await run_in_threadpool(out.write, form.take_pending())
    await run_in_threadpool(out.write, form.take_pending())
