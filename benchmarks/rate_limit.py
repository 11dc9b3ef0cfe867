"""``python -m benchmarks.rate_limit [--requests 3000]``: what counting a key's requests adds to each of them.

Four real uvicorns return a file's row in turns, so that other load meets all of them: two that do not count, between
which lies what this measurement cannot distinguish, one that calls the broker each time, and one that calls it for
a few at a time, which last for 0.3 seconds here (0.75 by default). Prints the time of a request as its client sees it
and the processor time that the server spends on it; writes benchmarks/results/rate_limit.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from store.tenants.rate_limits import AHEAD
from tests import servers
from tests.api.serving import Live, serving
from tests.store.rows import add_file

RESULT = Path("benchmarks/results/rate_limit.json")
WARM_UP = 100  # requests
COUNTED = 60_000  # requests a minute, more than are sent here
RATES: dict[str, dict[str, object]] = {
    "not counted": {},
    "not counted, again": {},
    "counted one by one": {"requests_per_minute": COUNTED, "requests_burst": AHEAD},
    "counted": {"requests_per_minute": COUNTED, "requests_burst": 6000},
}


@dataclass(frozen=True)
class Figure:
    """Times in milliseconds: the median of a request at its client, the mean of the server's processor time."""

    rate: str
    requests: int
    median_ms: float
    processor_ms: float


class TimedServer:
    """A server, and the times of its requests in milliseconds."""

    def __init__(self, live: Live, client: httpx.Client) -> None:
        self._client, self._process = client, psutil.Process(live.pid)
        self._path = f"/v1/files/{add_file(live.sessions, live.tenant.id).id}"
        for _ in range(WARM_UP):
            self._client.get(self._path).raise_for_status()
        self._spent = self._processor_seconds()
        self._times: list[float] = []

    def ask(self) -> None:
        started = time.perf_counter()
        self._client.get(self._path).raise_for_status()
        self._times.append((time.perf_counter() - started) * 1000)

    def figure(self, rate: str) -> Figure:
        processor_ms = (self._processor_seconds() - self._spent) * 1000 / len(self._times)
        return Figure(rate, len(self._times), round(median(self._times), 3), round(processor_ms, 3))

    def _processor_seconds(self) -> float:
        spent = self._process.cpu_times()
        return float(spent.user + spent.system)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    figures = _measured(parser.parse_args(arguments).requests)
    for figure in figures:
        print(f"{figure.rate}: median {figure.median_ms:.3f} ms, processor time {figure.processor_ms:.3f} ms a request")
    RESULT.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0


def _measured(requests: int) -> list[Figure]:
    with ExitStack() as stack:
        database, broker = stack.enter_context(servers.postgres()), stack.enter_context(servers.valkey())
        timed = [_timed_server(stack, database, broker, rate) for rate in RATES.values()]
        for _ in range(requests):
            for one in random.sample(timed, len(timed)):
                one.ask()
        return [one.figure(rate) for rate, one in zip(RATES, timed, strict=True)]


def _timed_server(stack: ExitStack, database: str, broker: str, options: dict[str, Any]) -> TimedServer:
    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    live = stack.enter_context(serving(home, database, broker, **options))
    headers = {"authorization": f"Bearer {live.tenant.api_key}"}
    return TimedServer(live, stack.enter_context(httpx.Client(base_url=live.url, headers=headers)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
