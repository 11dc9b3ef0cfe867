"""Start the processes that share the trials; they end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from research.editions import Edition


class Stopped(Exception):
    """A signal has ended the workers; what they had finished is kept."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


def run_workers(count: int, edition: Edition) -> None:
    """One process each, which share the cores evenly. Raises CalledProcessError if one fails, Stopped on a signal."""
    threads = str(max(1, (os.cpu_count() or 1) // count))
    command = [sys.executable, "-m", "research.trials.worker", edition.name, str(edition.home), str(os.getpid())]
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    workers: list[subprocess.Popen[bytes]] = []
    with _signals_raise():
        try:
            for _ in range(count):
                workers.append(subprocess.Popen(command, env=environment, start_new_session=True))
            codes = [worker.wait() for worker in workers]
        finally:
            for worker in workers:
                worker.terminate()  # nothing where it has ended
            for worker in workers:
                worker.wait()
    if any(codes):
        raise subprocess.CalledProcessError(max(codes, key=abs), command)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """A terminal's Ctrl-C reaches this process alone: the workers are in sessions of their own."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
