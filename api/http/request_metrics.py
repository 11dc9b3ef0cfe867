"""The requests that this process has answered, by route and status, with their durations."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Gauge, Histogram, Metric
from prometheus_client.registry import Collector

# Upper bounds in seconds: a job is read in milliseconds, 4 GiB are received in tens of seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)


class RequestMetrics(Collector):
    """``route`` is the template, such as /v1/files/{file_id}, so that the number of series is bounded."""

    def __init__(self) -> None:
        self.in_flight = Gauge(
            "pairtune_http_requests_in_flight", "Requests that this process is answering.", registry=None
        )
        self._durations = Histogram(
            "pairtune_http_request_duration_seconds",
            "Requests that this process has answered, by route and status.",
            ["method", "route", "status"],
            buckets=BOUNDS,
            registry=None,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._durations.labels(method, route, str(status)).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        for family in self._durations.collect():
            family.samples = [
                # Prometheus before version 3 compares `le` as text, and dashboards name le="1".
                sample._replace(labels=sample.labels | {"le": sample.labels["le"].removesuffix(".0")})
                if "le" in sample.labels
                else sample
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family
        yield from self.in_flight.collect()
