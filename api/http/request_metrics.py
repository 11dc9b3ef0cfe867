"""The requests that the API's processes have answered, by route and status, with their durations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Gauge, Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

# Upper bounds in seconds: a job is read in milliseconds, 4 GiB are received in tens of seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
METRICS_DIRECTORY = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # prometheus_client has read it too, when imported


class RequestMetrics(Collector):
    """``route`` is the template, such as /v1/files/{file_id}, so that the number of series is bounded.

    If several processes serve one port (api/server/__main__.py), each writes its figures to a file, and whichever is
    scraped adds them up: the counts of one alone would jump from scrape to scrape.
    """

    def __init__(self) -> None:
        self.in_flight = Gauge(
            "pairtune_http_requests_in_flight",
            "Requests that the API is answering.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._durations = Histogram(
            "pairtune_http_request_duration_seconds",
            "Requests that the API has answered, by route and status.",
            ["method", "route", "status"],
            buckets=BOUNDS,
            registry=None,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._durations.labels(method, route, str(status)).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        for family in self._families():
            family.samples = [
                # Prometheus before version 3 compares `le` as text, and dashboards name le="1".
                sample._replace(labels=sample.labels | {"le": sample.labels["le"].removesuffix(".0")})
                if "le" in sample.labels
                else sample
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family

    def _families(self) -> Iterator[Metric]:
        if METRICS_DIRECTORY is None:
            yield from self._durations.collect()
            yield from self.in_flight.collect()
        else:
            _forget_ended_processes(METRICS_DIRECTORY)
            yield from MultiProcessCollector(None, METRICS_DIRECTORY).collect()  # type: ignore[no-untyped-call]


def _forget_ended_processes(directory: str) -> None:
    """What one that was killed was answering is no longer in flight."""
    for path in Path(directory).glob("gauge_live*.db"):
        process_id = int(path.stem.rpartition("_")[2])
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
