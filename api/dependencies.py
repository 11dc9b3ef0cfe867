"""What a running API holds open, and how a route gets at it and at its caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import Engine

from api.caches.principals import Principals
from api.caches.queue_positions import Places
from store.base_models import RegisteredBase, read_bases
from store.blobs.blobs import Blobs
from store.blobs.sweep_lock import renewing
from store.database import Sessions, open_engine, open_reader, open_sessions
from store.hints import Hints
from store.settings import Settings
from store.tenants.api_keys import Principal
from store.tenants.rate_limits import Buckets


@dataclass(frozen=True)
class Backends:
    """``reader`` is for requests that one statement answers; ``principals`` and ``places`` are known for a moment."""

    settings: Settings
    sessions: Sessions
    reader: Engine
    principals: Principals
    places: Places
    blobs: Blobs
    hints: Hints
    buckets: Buckets
    bases: dict[str, RegisteredBase]


@contextmanager
def open_backends(settings: Settings) -> Iterator[Backends]:
    engine, reader = open_engine(settings.required_database_url), open_reader(settings.required_database_url)
    buckets = Buckets(settings.required_broker_url)
    sessions = open_sessions(engine)
    try:
        yield Backends(
            settings=settings,
            sessions=sessions,
            reader=reader,
            principals=Principals(),
            places=Places(),
            blobs=Blobs(settings.effective_blob_url, partial(renewing, sessions)),
            hints=Hints(settings.required_broker_url),
            buckets=buckets,
            bases=read_bases(settings.bases_file),
        )
    finally:
        buckets.close()
        reader.dispose()
        engine.dispose()


async def _opened(request: Request) -> Backends:
    backends: Backends = request.app.state.backends
    return backends


_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`Authorization: Bearer pt-...`")


async def _caller(request: Request, _documented: Annotated[object, Security(_bearer)]) -> Principal:
    """Set by the authentication in front of the body; a route that it does not guard fails here."""
    principal: Principal = request.state.principal
    return principal


Opened = Annotated[Backends, Depends(_opened)]
Caller = Annotated[Principal, Depends(_caller)]
