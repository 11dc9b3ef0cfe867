"""Turns at what the requests of an API process share, such as decoding images: fair between projects.

As at the workers (store/turns.py), first the project with the fewest in work, among equals the one that was served
least recently. Within a project its claimants take turns in the same way: of one key that requests many thumbnails, an
upload of the same project waits for one at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True)
class Claimant:
    """Whose work it is: a project, and which of its works, by the key and the operation."""

    project_id: str
    work: str


class Turns:
    """``at_once`` have their turn at a time. Belongs to one event loop."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._running: Counter[Claimant | str] = Counter()  # by claimant, and by project
        self._served: dict[Claimant | str, int] = {}  # when last, of those that wait or did while others waited
        self._numbers = count(1)
        self._waiting: dict[Claimant, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, claimant: Claimant) -> AsyncIterator[None]:
        """Waits for the turn; it ends with the ``async with`` block."""
        await self._begin(claimant)
        try:
            yield
        finally:
            self._end(claimant)

    async def _begin(self, claimant: Claimant) -> None:
        if self._free and not self._waiting:
            self._start(claimant)
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(claimant, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._end(claimant)  # it was granted in the moment in which its client went away
            else:
                self._forget(claimant, granted)
            raise

    def _end(self, claimant: Claimant) -> None:
        self._free += 1
        for one in (claimant, claimant.project_id):
            self._running[one] -= 1
            if not self._running[one]:
                del self._running[one]
        if not self._waiting:
            self._served.clear()
            return
        following = min(self._waiting, key=self._rank)
        granted = self._waiting[following][0]
        self._forget(following, granted)
        self._start(following)
        granted.set_result(None)

    def _start(self, claimant: Claimant) -> None:
        self._free -= 1
        now = next(self._numbers)
        for one in (claimant, claimant.project_id):
            self._running[one] += 1
            self._served[one] = now

    def _rank(self, claimant: Claimant) -> tuple[int, ...]:
        return tuple(
            figure
            for one in (claimant.project_id, claimant)
            for figure in (self._running[one], self._served.get(one, 0))
        )

    def _forget(self, claimant: Claimant, granted: asyncio.Future[None]) -> None:
        self._waiting[claimant].remove(granted)
        if not self._waiting[claimant]:
            del self._waiting[claimant]
