"""Stopping a trainer: SIGTERM, so that it checkpoints, and SIGKILL once its grace is over."""

from __future__ import annotations

import signal
import subprocess
import time

from worker.runtime import process


class Stop:
    """The first request sends SIGTERM; a request after ``grace_seconds`` sends SIGKILL."""

    def __init__(self, trainer: subprocess.Popen[bytes], *, grace_seconds: float) -> None:
        self._trainer = trainer
        self._grace_seconds = grace_seconds
        self._kill_at: float | None = None

    @property
    def requested(self) -> bool:
        return self._kill_at is not None

    def request(self) -> None:
        if self._kill_at is None:
            process.signal_group(self._trainer, signal.SIGTERM)
            self._kill_at = time.monotonic() + self._grace_seconds
        elif time.monotonic() > self._kill_at:
            self.kill()

    def kill(self) -> None:
        process.signal_group(self._trainer, signal.SIGKILL)
