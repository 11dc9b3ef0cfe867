"""A multipart upload, streamed to a temporary file and hashed on the way: memory stays small, nothing stays behind."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError
from api.files.form import Form
from api.files.reservation import Reservation
from api.http.route_rules import FORM_OVERHEAD
from store.blobs.blobs import StoredBlob

BLOCK = 1024 * 1024  # bytes gathered before a write, so that a thread is not woken for every packet


@dataclass(frozen=True)
class ReceivedFile:
    """A file part's bytes in ``path``, which may be moved away, and its name; neither if the part did not come."""

    path: Path
    blob: StoredBlob
    filename: str | None


@dataclass(frozen=True)
class ReceivedForm:
    """The file parts by their names, the other fields, and what is wrong with the form."""

    files: dict[str, ReceivedFile]
    fields: dict[str, str]
    field_errors: tuple[FieldError, ...]


@dataclass(frozen=True)
class Received:
    """As ReceivedForm, of a form with one file."""

    path: Path
    blob: StoredBlob
    filename: str | None
    fields: dict[str, str]
    field_errors: tuple[FieldError, ...]


def min_size(request: Request) -> int:
    """Bytes that the file of a request has at least, by the length of the body that it declares, if any."""
    length = request.headers.get("content-length", "")
    return max(int(length) - FORM_OVERHEAD, 0) if length.isdecimal() else 0


@asynccontextmanager
async def received(
    request: Request, reservation: Reservation, *, file: str = "file", texts: tuple[str, ...] = ("purpose",)
) -> AsyncIterator[Received]:
    """Read the form with the part ``file`` and the fields ``texts``; its temporary file and its reservation live as
    long as this context, whatever happens."""
    async with received_form(request, reservation, Form((file,), texts)) as form:
        came = form.files[file]
        yield Received(came.path, came.blob, came.filename, form.fields, form.field_errors)


@asynccontextmanager
async def received_form(request: Request, reservation: Reservation, form: Form) -> AsyncIterator[ReceivedForm]:
    """Read the request into ``form``, its files into temporary ones that live as long as this context, as does the
    reservation of their bytes."""
    parser = _parser(request, form)
    directory = reservation.dependencies.settings.upload_directory
    try:
        with contextlib.ExitStack() as stack:
            await run_in_threadpool(reservation.extend, min_size(request))
            paths = {name: stack.enter_context(temporary(directory)) for name in form.files}
            with contextlib.ExitStack() as opened:
                outs = {name: _Out(opened.enter_context(path.open("wb"))) for name, path in paths.items()}
                await _stream(request, parser, form, outs, reservation)
            if not form.complete:
                raise InvalidRequest([FieldError(None, "The form ends before its closing boundary.", "invalid_form")])
            came = {name: ReceivedFile(paths[name], out.blob, form.filenames.get(name)) for name, out in outs.items()}
            yield ReceivedForm(came, form.fields, (*form.field_errors, *form.missing))
    finally:
        await run_in_threadpool(reservation.release)


class _Out:
    """A file being written, counted and hashed on the way."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._size, self._digest = out, 0, hashlib.sha256()

    def write(self, block: bytearray) -> None:
        self._out.write(block)
        self._digest.update(block)
        self._size += len(block)

    def flush(self) -> None:
        self._out.flush()  # a disk that is full says so here, not in closing

    @property
    def size(self) -> int:
        return self._size

    @property
    def blob(self) -> StoredBlob:
        return StoredBlob(self._digest.hexdigest(), self._size)


@contextmanager
def temporary(directory: Path) -> Iterator[Path]:
    """An empty file of our own that is gone at the end, unless it was moved away. It is locked as long as we live."""
    path, locked = _locked_file(directory)
    with locked:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def prepare_directory(directory: Path) -> None:
    """Make the directory and remove what killed processes left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        # Gone meanwhile, or locked: another API process is receiving it.
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _locked_file(directory: Path) -> tuple[Path, IO[bytes]]:
    while True:
        path = directory / uuid.uuid4().hex
        locked = path.open("xb")
        fcntl.flock(locked, fcntl.LOCK_EX)
        if os.fstat(locked.fileno()).st_nlink:
            return path, locked
        locked.close()  # a process that was just starting took it for an abandoned one before we locked it


def _parser(request: Request, form: Form) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            [FieldError(None, f"Send multipart/form-data; known parts: {form.field_names}.", "invalid_form")]
        )
    try:
        return MultipartParser(boundary, form.callbacks())
    except FormParserError as error:
        raise InvalidRequest([FieldError(None, f"The form cannot be read: {error}.", "invalid_form")]) from error


async def _stream(
    request: Request, parser: MultipartParser, form: Form, outs: dict[str, _Out], reservation: Reservation
) -> None:
    async for chunk in request.stream():
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest([FieldError(None, f"The form cannot be read: {error}.", "invalid_form")]) from error
        for name in outs:
            if len(form.pending[name]) >= BLOCK:
                await run_in_threadpool(_write, outs, name, form.take_pending(name), reservation)
    for name, out in outs.items():
        await run_in_threadpool(_write, outs, name, form.take_pending(name), reservation)
        await run_in_threadpool(out.flush)


def _write(outs: dict[str, _Out], name: str, block: bytearray, reservation: Reservation) -> None:
    if block:
        reservation.extend(sum(out.size for out in outs.values()) + len(block))
        outs[name].write(block)
