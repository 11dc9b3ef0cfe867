"""How long a command goes on with a server that is away for a while, or for what is not there yet."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from cli.errors import NotReachable, Refused
from cli.output import say

Answer = TypeVar("Answer")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds
PASSING = (429, 502, 503, 504)  # too many requests, a proxy with no server behind it, a database that is being started


class Patience:
    """``seconds`` from now on, None: without end. ``tell`` hears once that a server is away, and that it is back."""

    def __init__(self, seconds: float | None, tell: Callable[[str], None] = say) -> None:
        self._ends_at = float("inf") if seconds is None else time.monotonic() + seconds
        self._tell = tell

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    def pause(self, seconds: float) -> None:
        """Sleep for that long, or for what is left."""
        time.sleep(max(0.0, min(seconds, self._ends_at - time.monotonic())))

    def answered(self, ask: Callable[[], Answer]) -> Answer:
        """What ``ask`` returns, however often it has to be asked; at the end of patience, its last error."""
        told, pause = False, FIRST_PAUSE
        while True:
            try:
                answer = ask()
            except (NotReachable, Refused) as error:
                if self.is_over or not _passes(error):
                    raise
                if not told:
                    self._tell(f"{error} Trying again.")
                told = True
                self.pause(max(pause * random.uniform(0.5, 1), error.retry_after))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if told:
                    self._tell("The server answers again.")
                return answer


def _passes(error: NotReachable | Refused) -> bool:
    """Images that are not drawn yet are no trouble of the server's: they are followed by their id."""
    return isinstance(error, NotReachable) or (error.status in PASSING and error.generation_id is None)
