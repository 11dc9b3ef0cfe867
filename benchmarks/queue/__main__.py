"""``python -m benchmarks.queue``: what a scrape of /metrics asks of PostgreSQL when there are many jobs.

Prints medians and the slowest; writes benchmarks/results/queue.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.queue.rows import fill
from store import signals
from store.database import Sessions, open_engine, open_sessions
from tests import servers

RESULT = Path("benchmarks/results/queue.json")
MUST_REACH = 0.05  # seconds of a scrape
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
        figures = [_scrape(url, 100_000, 10_000), _scrape(url, 100_000, 99_980)]
    for one in figures:
        print(
            f"{one.what}, {one.jobs} jobs, {one.queued} queued: {one.median * 1000:.1f} ms, "
            f"slowest {one.slowest * 1000:.1f} ms"
        )
    RESULT.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0 if all(figure.median < MUST_REACH for figure in figures) else 1


def _scrape(url: str, jobs: int, queued: int) -> Figure:
    with servers.database(url, f"queued_{queued}") as database:
        engine = open_engine(database)
        sessions = open_sessions(engine)
        fill(engine, jobs=jobs, queued=queued)
        seconds = _timed(lambda: _read(sessions))
        engine.dispose()
    return Figure("scrape", jobs, queued, statistics.median(seconds), max(seconds))


def _read(sessions: Sessions) -> None:
    with sessions() as session:
        signals.read(session)


def _timed(act: Callable[[], object]) -> list[float]:
    act()
    return [_seconds(act) for _ in range(TURNS)]


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
