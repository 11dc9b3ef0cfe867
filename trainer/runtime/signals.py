"""Turn SIGTERM into a flag, which the program checks where it can stop safely."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from types import FrameType

from trainer.runtime.errors import Interrupted


@dataclass
class StopRequest:
    """``single_process``: no other process has to stop at the same point."""

    requested: bool = False
    single_process: bool = True

    def check(self) -> None:
        """Raises Interrupted once a stop is requested; among several processes, ``agree`` does."""
        if self.single_process:
            self.agree(self.requested)

    def agree(self, any_requested: bool) -> None:
        """``any_requested``: of all processes, which call this together."""
        if any_requested:
            raise Interrupted("Stopped by a signal.")


def stop_on_signals() -> StopRequest:
    """From now on SIGTERM and SIGINT only request a stop."""
    request = StopRequest()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        request.requested = True

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    return request
