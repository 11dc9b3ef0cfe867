"""The requests that this process has answered, by route and status, with how long they took."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

from api.http.exposition import Family, Sample

# Upper bounds in seconds: a job is read in milliseconds, 4 GiB are received in tens of seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)


@dataclass(frozen=True)
class Answered:
    """``route`` is the template, such as /v1/files/{file_id}: as many values as there are routes, whatever is asked."""

    method: str
    route: str
    status: int

    def labels(self) -> dict[str, str]:
        return {"method": self.method, "route": self.route, "status": str(self.status)}


@dataclass
class _Durations:
    """How many fell into each of BOUNDS and beyond, and their sum in seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0


class Requests:
    """Written by the event loop's thread alone; whoever reads sees each request whole or nearly so."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._seen: dict[Answered, _Durations] = {}

    def answered(self, what: Answered, seconds: float) -> None:
        durations = self._seen.setdefault(what, _Durations())
        durations.buckets[sum(seconds > bound for bound in BOUNDS)] += 1
        durations.seconds += seconds

    def families(self) -> list[Family]:
        seen = sorted(self._seen.copy().items(), key=lambda item: (item[0].route, item[0].method, item[0].status))
        samples = [sample for what, durations in seen for sample in _samples(what, durations)]
        return [
            Family(
                "http_request_duration_seconds",
                "histogram",
                "Requests that this process has answered, by route and status.",
                tuple(samples),
            ),
            Family(
                "http_requests_in_flight",
                "gauge",
                "Requests that this process is answering.",
                (Sample(self.in_flight),),
            ),
        ]


def _samples(what: Answered, durations: _Durations) -> list[Sample]:
    labels = what.labels()
    below = list(accumulate(durations.buckets))
    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    counted = [Sample(n, labels | {"le": bound}, "_bucket") for n, bound in zip(below, bounds, strict=True)]
    return [*counted, Sample(durations.seconds, labels, "_sum"), Sample(below[-1], labels, "_count")]
