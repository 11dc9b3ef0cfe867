"""The event streams that a key has open, counted over all API processes."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anyio
from starlette.concurrency import run_in_threadpool

from api.dependencies import Dependencies
from api.errors.errors import TooManyStreams

HELD_SECONDS = 120  # a stream that a killed process leaves counts for so long
RENEWED_SECONDS = 45.0  # a stream sends something every 15 seconds


@dataclass
class OpenStream:
    """One of a key's streams, from ``begin`` to the end of ``around``."""

    dependencies: Dependencies
    key_id: str
    _holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    _held_at: float = 0.0

    def begin(self) -> None:
        """Raises TooManyStreams."""
        if not self._hold():
            raise TooManyStreams(self.dependencies.settings.streams)

    async def around(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for message in messages:
                yield message
                if time.monotonic() > self._held_at + RENEWED_SECONDS and not await run_in_threadpool(self._hold):
                    return  # it was not renewed in time, and others have begun meanwhile
        finally:
            with anyio.CancelScope(shield=True):  # the end of a client's connection cancels what is here
                await messages.aclose()  # type: ignore[attr-defined]  # an async generator
                await run_in_threadpool(self.dependencies.in_flight.release, self._name, self._holder)

    def _hold(self) -> bool:
        self._held_at = time.monotonic()
        limit = self.dependencies.settings.streams
        return self.dependencies.in_flight.hold(self._name, self._holder, 1, limit, seconds=HELD_SECONDS).given

    @property
    def _name(self) -> str:
        return f"streams:{self.key_id}"
