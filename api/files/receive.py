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

from api.body_limit import FORM_OVERHEAD
from api.errors import InvalidRequest
from api.faults import Fault
from api.files.form import Form
from store.blobs import StoredBlob

BLOCK = 1024 * 1024  # bytes gathered before a write, so that a thread is not woken for every packet


@dataclass(frozen=True)
class Received:
    """The file part's bytes in ``path``, which may be moved away; the name that it came with; the other fields."""

    path: Path
    blob: StoredBlob
    filename: str | None
    fields: dict[str, str]
    faults: tuple[Fault, ...]


def least_size(request: Request) -> int:
    """Bytes that the file of a request has at least, by the length of the body that it declares, if any."""
    length = request.headers.get("content-length", "")
    return max(int(length) - FORM_OVERHEAD, 0) if length.isdecimal() else 0


@asynccontextmanager
async def received(
    request: Request, directory: Path, *, file: str = "file", texts: tuple[str, ...] = ("purpose",)
) -> AsyncIterator[Received]:
    """Read the form with the part ``file`` and the fields ``texts``; its temporary file lives as long as this context,
    whatever happens."""
    form = Form(file, texts)
    parser = _parser(request, form)
    with temporary(directory) as path:
        with await run_in_threadpool(path.open, "wb") as out:
            blob = await _stream(request, parser, form, out)
        if not form.complete:
            raise InvalidRequest([Fault(None, "The form ends before its closing boundary.", "invalid_form")])
        yield Received(path, blob, form.filename, form.fields, (*form.faults, *form.missing))


@contextmanager
def temporary(directory: Path) -> Iterator[Path]:
    """An empty file of our own that is gone at the end, unless it was moved away. It is locked as long as we live."""
    path, held = _made(directory)
    with held:
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


def _made(directory: Path) -> tuple[Path, IO[bytes]]:
    while True:
        path = directory / uuid.uuid4().hex
        held = path.open("xb")
        fcntl.flock(held, fcntl.LOCK_EX)
        if os.fstat(held.fileno()).st_nlink:
            return path, held
        held.close()  # a process that was just starting took it for a leftover, before we had it locked


def _parser(request: Request, form: Form) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        wanted = ", ".join((form.file, *form.texts))
        raise InvalidRequest([Fault(None, f"Send multipart/form-data; known parts: {wanted}.", "invalid_form")])
    try:
        return MultipartParser(boundary, form.callbacks())
    except FormParserError as error:
        raise InvalidRequest([Fault(None, f"The form cannot be read: {error}.", "invalid_form")]) from error


async def _stream(request: Request, parser: MultipartParser, form: Form, out: IO[bytes]) -> StoredBlob:
    size, digest = 0, hashlib.sha256()

    def write(block: bytearray) -> None:
        nonlocal size
        out.write(block)
        digest.update(block)
        size += len(block)

    async for chunk in request.stream():
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest([Fault(None, f"The form cannot be read: {error}.", "invalid_form")]) from error
        if len(form.pending) >= BLOCK:
            await run_in_threadpool(write, form.take_pending())
    await run_in_threadpool(write, form.take_pending())
    await run_in_threadpool(out.flush)  # a disk that is full says so here, not in closing
    return StoredBlob(digest.hexdigest(), size)
