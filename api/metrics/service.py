"""All that is scraped: figures that processes share come from PostgreSQL, those of requests from this process."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.dependencies import Backends
from api.http.exposition import Family, Sample, render
from api.http.request_metrics import Requests
from store.blobs import disk_space
from store.database import Sessions
from store.ops import service_metrics
from store.ops.service_metrics import Signals

QUEUES = ("draw", "intake", "train")
COUNTERS = {
    "claims": "Jobs, files and images to draw that workers have taken.",
    "crashes": "Ends of trainers or their workers that nobody asked for, lost leases among them.",
    "renewals": "Leases that their owners have extended.",
    "requeues": "Those that went back to the queue: their worker stopped, crashed or was lost.",
}


def scrape(backends: Backends, requests: Requests) -> str:
    """A database that does not answer is itself a signal: what the process knows is told without it."""
    found = _read(backends.sessions)
    shared = _shared(found) if found is not None else []
    up = Family("database_up", "gauge", "Whether PostgreSQL answered this scrape.", (Sample(found is not None),))
    return render([up, *shared, _disk(backends), *requests.families()])


def _read(sessions: Sessions) -> Signals | None:
    try:
        with sessions() as session:
            return service_metrics.read(session)
    except (OperationalError, PoolTimeout):
        return None


def _shared(found: Signals) -> list[Family]:
    return [
        _gauge("jobs", "Jobs that have not ended.", *(Sample(n, {"status": s}) for s, n in found.jobs.items())),
        _gauge(
            "queue_age_seconds",
            "For how long the oldest job, file or request for images has been waiting; 0 when none is.",
            *(Sample(age, {"queue": queue}) for queue, age in found.queue_age.items()),
        ),
        _gauge("files_waiting", "Uploads that wait to be read.", Sample(found.waiting_files)),
        *(_counter(found, name, words) for name, words in COUNTERS.items()),
        *_running(found),
        _gauge(
            "loop_lag_seconds",
            "Time since a loop of the dispatcher was last round.",
            *(Sample(lag, {"loop": loop}) for loop, lag in found.lags.items()),
        ),
        _gauge("uploads_pending", "Uploads in parts that were begun and not ended.", Sample(found.pending_uploads)),
        _gauge("webhook_deliveries_due", "Webhooks that should be sent by now.", Sample(found.due_deliveries)),
        _gauge(
            "webhook_delivery_age_seconds",
            "For how long the oldest of them has been due; 0 when none is.",
            Sample(found.oldest_due_delivery),
        ),
    ]


def _counter(found: Signals, name: str, words: str) -> Family:
    """All queues from the start: a counter that appears with its first event hides it from rate()."""
    samples = (Sample(found.counters.get((name, queue), 0), {"queue": queue}) for queue in QUEUES)
    return Family(f"{name}_total", "counter", words, tuple(samples))


def _running(found: Signals) -> list[Family]:
    speed = [(one.worker, one.pairs_per_second) for one in found.running]
    memory = [(one.worker, one.peak_memory_bytes) for one in found.running]
    return [
        _gauge("training_pairs_per_second", "Speed of a worker's running job.", *_known(speed)),
        _gauge("training_peak_memory_bytes", "Peak device memory of a worker's running job.", *_known(memory)),
        _gauge(
            "intake_peak_memory_bytes",
            "Peak resident memory of an intake worker's process that reads a file.",
            *_known([(one.worker, one.peak_memory_bytes) for one in found.reading]),
        ),
    ]


def _known(figures: list[tuple[str, float | None]]) -> list[Sample]:
    return [Sample(value, {"worker": worker}) for worker, value in figures if value is not None]


def _disk(backends: Backends) -> Family:
    free = disk_space.free(disk_space.of_the_api(backends.settings))
    samples = (Sample(room, {"use": use}) for use, room in free.items())
    return _gauge("disk_free_bytes", "Free space of the filesystems that this process writes to.", *samples)


def _gauge(name: str, words: str, *samples: Sample) -> Family:
    return Family(name, "gauge", words, samples)
