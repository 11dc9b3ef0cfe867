"""The connections and caches of a running API, and how a route gets them and its caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import Engine

from api.caches.key_addresses import KeyAddresses
from api.caches.principals import Principals
from api.caches.queue_positions import QueuePositions
from store.base_models import RegisteredBase, read_bases
from store.blobs.blobs import Blobs
from store.blobs.sweep_lock import renewing
from store.database import Sessions, open_engine, open_reader, open_sessions
from store.hints import Hints
from store.settings import Settings
from store.tenants.api_keys import Principal
from store.tenants.in_flight import InFlight
from store.tenants.rate_limits import Buckets


@dataclass(frozen=True)
class Dependencies:
    """``reader`` serves requests of one statement; ``principals`` and ``queue_positions`` are caches of a second."""

    settings: Settings
    sessions: Sessions
    reader: Engine
    principals: Principals
    queue_positions: QueuePositions
    key_addresses: KeyAddresses
    blobs: Blobs
    hints: Hints
    buckets: Buckets
    in_flight: InFlight
    bases: dict[str, RegisteredBase]


@contextmanager
def open_dependencies(settings: Settings) -> Iterator[Dependencies]:
    engine, reader = open_engine(settings.required_database_url), open_reader(settings.required_database_url)
    buckets = Buckets(settings.required_broker_url)
    in_flight = InFlight(settings.required_broker_url)
    sessions = open_sessions(engine)
    try:
        yield Dependencies(
            settings=settings,
            sessions=sessions,
            reader=reader,
            principals=Principals(),
            queue_positions=QueuePositions(),
            key_addresses=KeyAddresses(),
            blobs=Blobs(settings.effective_blob_url, partial(renewing, sessions)),
            hints=Hints(settings.required_broker_url),
            buckets=buckets,
            in_flight=in_flight,
            bases=read_bases(settings.bases_file),
        )
    finally:
        in_flight.close()
        buckets.close()
        reader.dispose()
        engine.dispose()


async def _injected(request: Request) -> Dependencies:
    dependencies: Dependencies = request.app.state.dependencies
    return dependencies


_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`Authorization: Bearer pt-...`")


async def _caller(request: Request, _documented: Annotated[object, Security(_bearer)]) -> Principal:
    """The authentication sets it before the body is read; a public route that asks for its caller fails here."""
    principal: Principal = request.state.principal
    return principal


Injected = Annotated[Dependencies, Depends(_injected)]
Caller = Annotated[Principal, Depends(_caller)]
