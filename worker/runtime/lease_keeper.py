"""Renew a lease in the background, and judge when it can no longer be trusted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from store.errors import LeaseLost
from store.job_status import RequestedAction

log = structlog.get_logger()

# A worker that cannot renew stops itself this part of a lease after its last success: before others may claim.
TRUSTED_PART = 0.8
WATCH_SECONDS = 0.1
RETRY_SECONDS = 0.2

Result = TypeVar("Result")


class LeaseKeeper:
    """``renew`` is called every ``heartbeat_seconds``; ``requested`` is what it returned last.

    ``claimed_at`` is time.monotonic() from before the claim: this clock only says how long ago that was.
    """

    def __init__(
        self,
        renew: Callable[[], RequestedAction | None],
        *,
        claimed_at: float,
        lease_seconds: float,
        heartbeat_seconds: float,
    ) -> None:
        self._renew = renew
        self._heartbeat = heartbeat_seconds
        self._trusted_seconds = lease_seconds * TRUSTED_PART
        self._trusted_until = claimed_at + self._trusted_seconds
        self._lost = False
        self._stop = threading.Event()
        self.requested: RequestedAction | None = None

    @property
    def lost(self) -> bool:
        return self._lost or time.monotonic() > self._trusted_until

    def run(self) -> None:
        while not self._stop.wait(self._heartbeat):
            requested_at = time.monotonic()
            try:
                self.requested = self._renew()
            except LeaseLost:
                self._lost = True
                return
            except OperationalError as error:
                log.warning("lease.not_renewed", reason=str(error.orig))
                continue
            self._trusted_until = requested_at + self._trusted_seconds

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def renewing(
    renew: Callable[[], RequestedAction | None], *, claimed_at: float, lease_seconds: float, heartbeat_seconds: float
) -> Iterator[LeaseKeeper]:
    keeper = LeaseKeeper(renew, claimed_at=claimed_at, lease_seconds=lease_seconds, heartbeat_seconds=heartbeat_seconds)
    with _in_thread("lease-keeper", keeper.run, keeper.stop):
        yield keeper


@contextmanager
def ended_when_lost(keeper: LeaseKeeper, end: Callable[[], None]) -> Iterator[None]:
    """Call ``end`` once the lease is lost, even while the caller hangs in a write to a silent database."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(WATCH_SECONDS):
            if keeper.lost:
                end()
                return

    with _in_thread("lease-watch", watch, stop.set):
        yield


@contextmanager
def released_on_stop(stopping: Callable[[], bool], release: Callable[[], None]) -> Iterator[None]:
    """Call ``release``, once, when the worker has to end: while the caller is busy, which may be for longer than it may
    take, or when the caller has seen it first and breaks off with LeaseLost."""
    stop, released = threading.Event(), threading.Event()

    def release_once() -> None:
        if not released.is_set():
            released.set()
            with suppress(LeaseLost):
                release()

    def watch() -> None:
        while not stop.wait(WATCH_SECONDS):
            if stopping():
                release_once()
                return

    try:
        with _in_thread("stop-watch", watch, stop.set):
            yield
    except LeaseLost:
        if stopping():
            release_once()
        raise


def write_until_lost(keeper: LeaseKeeper, lost: LeaseLost, write: Callable[[], Result]) -> Result:
    """Repeat while the database cannot be reached. Raises ``lost`` when the lease can no longer be trusted."""
    while True:
        try:
            return write()
        except OperationalError as error:
            log.warning("lease.not_written", row=lost.row_id, reason=str(error.orig))
            if keeper.lost:
                raise lost from error
            time.sleep(RETRY_SECONDS)


@contextmanager
def _in_thread(name: str, run: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()
