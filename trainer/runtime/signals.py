"""SIGTERM as a flag that the program looks at where stopping is safe."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from types import FrameType

from trainer.runtime.errors import Interrupted


@dataclass
class StopRequest:
    """``alone``: no other process has to stop at the same place."""

    requested: bool = False
    alone: bool = True

    def check(self) -> None:
        """Raises Interrupted once a stop was asked for; among several processes, ``agree`` does."""
        if self.alone:
            self.agree(self.requested)

    def agree(self, any_requested: bool) -> None:
        """``any_requested``: of all processes, which call this together."""
        if any_requested:
            raise Interrupted("Stopped by a signal.")


def stop_on_signals() -> StopRequest:
    """From now on SIGTERM and SIGINT only ask for a stop."""
    request = StopRequest()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        request.requested = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return request
