"""All that is scraped: figures that processes share come from PostgreSQL, those of requests from this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.dependencies import Dependencies
from api.http.request_metrics import RequestMetrics
from store.blobs import disk_space
from store.database import Sessions
from store.ops import service_metrics
from store.ops.service_metrics import Signals

QUEUES = ("draw", "intake", "train")
COUNTERS = {
    "claims": "Jobs, files and images to draw that workers have taken.",
    "crashes": "Ends of trainers or their workers that nobody requested, lost leases among them.",
    "renewals": "Leases that their owners have extended.",
    "requeues": "Those that went back to the queue: their worker stopped, crashed or was lost.",
}


def metrics_registry(dependencies: Dependencies, requests: RequestMetrics) -> CollectorRegistry:
    """Of one application: the shared figures, those of its requests, and those of its process and Python."""
    registry = CollectorRegistry()
    registry.register(SharedMetrics(dependencies))
    registry.register(requests)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class SharedMetrics(Collector):
    """Reads PostgreSQL and the disks at each scrape. If the database does not answer, the scrape reports that."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies

    def collect(self) -> Iterator[Metric]:
        found = _read(self._dependencies.sessions)
        yield _gauge("database_up", "Whether PostgreSQL answered this scrape.", found is not None)
        if found is not None:
            yield from _shared(found)
        free = disk_space.free(disk_space.of_the_api(self._dependencies.settings))
        yield _gauges(
            "disk_free_bytes", "Free space of the filesystems that this process writes to.", "use", free.items()
        )


def _read(sessions: Sessions) -> Signals | None:
    try:
        with sessions() as session:
            return service_metrics.read(session)
    except (OperationalError, PoolTimeout):
        return None


def _shared(found: Signals) -> Iterator[Metric]:
    yield _gauges("jobs", "Jobs that have not ended.", "status", found.jobs.items())
    yield _gauges(
        "queue_age_seconds",
        "For how long the oldest job, file or request for images has been waiting; 0 when none is.",
        "queue",
        found.queue_age.items(),
    )
    yield _gauge("files_waiting", "Uploads that wait to be read.", found.waiting_files)
    for name, text in COUNTERS.items():
        yield _counter(found, name, text)
    yield from _running(found)
    yield _gauges("loop_lag_seconds", "Time since a loop of the dispatcher was last round.", "loop", found.lags.items())
    yield _gauge("uploads_pending", "Uploads in parts that were begun and not ended.", found.pending_uploads)
    yield _gauge("webhook_deliveries_due", "Webhooks that should be sent by now.", found.due_deliveries)
    yield _gauge(
        "webhook_delivery_age_seconds",
        "For how long the oldest of them has been due; 0 when none is.",
        found.oldest_due_delivery,
    )


def _running(found: Signals) -> Iterator[Metric]:
    speed = ((one.worker, one.pairs_per_second) for one in found.running)
    memory = ((one.worker, one.peak_memory_bytes) for one in found.running)
    reading = ((one.worker, one.peak_memory_bytes) for one in found.reading)
    yield _gauges("training_pairs_per_second", "Speed of a worker's running job.", "worker", _without_none(speed))
    yield _gauges(
        "training_peak_memory_bytes", "Peak device memory of a worker's running job.", "worker", _without_none(memory)
    )
    yield _gauges(
        "intake_peak_memory_bytes",
        "Peak resident memory of an intake worker's process that reads a file.",
        "worker",
        _without_none(reading),
    )


def _without_none(figures: Iterable[tuple[str, float | None]]) -> Iterator[tuple[str, float]]:
    return ((worker, value) for worker, value in figures if value is not None)


def _counter(found: Signals, name: str, text: str) -> Metric:
    """All queues from the start: a counter that appears with its first event hides it from rate()."""
    family = CounterMetricFamily(f"pairtune_{name}", text, labels=["queue"])
    for queue in QUEUES:
        family.add_metric([queue], found.counters.get((name, queue), 0))
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pairtune_{name}", text, value=value)


def _gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """One sample for each value of the label."""
    family = GaugeMetricFamily(f"pairtune_{name}", text, labels=[label])
    for value_of_label, value in values:
        family.add_metric([value_of_label], value)
    return family
