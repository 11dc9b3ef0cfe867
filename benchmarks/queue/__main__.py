"""``python -m benchmarks.queue``: what many jobs cost a scrape of /metrics, a claim and a queue position.

Prints medians and the slowest; writes benchmarks/results/queue.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.queue.rows import fill
from store.database import Sessions, open_engine, open_sessions
from store.jobs import job_leases, queue
from store.ops import service_metrics
from tests import servers

RESULT = Path("benchmarks/results/queue.json")
QUEUED = 10_000
MUST_REACH = 0.05  # seconds, with so many queued
TURNS = 50


@dataclass(frozen=True)
class Figure:
    """Seconds."""

    what: str
    jobs: int
    queued: int
    median: float
    slowest: float


def main() -> int:
    with servers.postgres() as url:
        figures = [*_measured(url, 100_000, QUEUED), *_measured(url, 100_000, 99_980)]
    for one in figures:
        print(
            f"{one.what}, {one.jobs} jobs, {one.queued} queued: {one.median * 1000:.1f} ms, "
            f"slowest {one.slowest * 1000:.1f} ms"
        )
    RESULT.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0 if all(figure.median < MUST_REACH for figure in figures if figure.queued == QUEUED) else 1


def _measured(url: str, jobs: int, queued: int) -> list[Figure]:
    with servers.database(url, f"queued_{queued}") as database:
        engine = open_engine(database)
        sessions = open_sessions(engine)
        fill(engine, jobs=jobs, queued=queued)
        acts = {"scrape": _read, "place of a job": _queue_position, "claim": _claim}
        seconds = {what: _timed(partial(act, sessions)) for what, act in acts.items()}
        engine.dispose()
    return [Figure(what, jobs, queued, statistics.median(took), max(took)) for what, took in seconds.items()]


def _read(sessions: Sessions) -> None:
    with sessions() as session:
        service_metrics.read(session)


def _queue_position(sessions: Sessions) -> None:
    """Of the first project's first job, as rows.py names it."""
    with sessions() as session:
        queue.positions(session, ["ftjob-000000000001"])


def _claim(sessions: Sessions) -> None:
    """With its event and the rest of its transaction."""
    with sessions.begin() as session:
        assert job_leases.claim_next(session, worker="w", lease_seconds=600) is not None


def _timed(act: Callable[[], object]) -> list[float]:
    act()
    return [_seconds(act) for _ in range(TURNS)]


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
