"""The retry policy: how long a command repeats requests to a server that does not answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from cli.errors import NotReachable, RequestFailed
from cli.output import say

Answer = TypeVar("Answer")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds
PASSING = (429, 502, 503, 504)  # too many requests, a proxy with no server behind it, a database that is being started


class RetryPolicy:
    """``seconds`` from now on; None: no limit. ``report`` is called when the server stops and starts to answer."""

    def __init__(self, seconds: float | None, report: Callable[[str], None] = say) -> None:
        self._ends_at = float("inf") if seconds is None else time.monotonic() + seconds
        self._report = report

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    def pause(self, seconds: float) -> None:
        """Sleep for that long, or for what is left."""
        time.sleep(max(0.0, min(seconds, self._ends_at - time.monotonic())))

    def call(self, request: Callable[[], Answer]) -> Answer:
        """The result of ``request``, repeated while it fails; after the last retry, its error."""
        reported, pause = False, FIRST_PAUSE
        while True:
            try:
                answer = request()
            except (NotReachable, RequestFailed) as error:
                if self.is_over or not _passes(error):
                    raise
                if not reported:
                    self._report(f"{error} Trying again.")
                reported = True
                self.pause(max(pause * random.uniform(0.5, 1), error.retry_after))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if reported:
                    self._report("The server answers again.")
                return answer


def _passes(error: NotReachable | RequestFailed) -> bool:
    """A generation that is not finished is no server error: the command polls it by its id."""
    return isinstance(error, NotReachable) or (error.status in PASSING and error.generation_id is None)
