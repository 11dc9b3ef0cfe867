"""What finished jobs cost, from their events and files: the ground that estimates stand on. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sqlalchemy import BigInteger, Row, cast, func, select
from sqlalchemy.orm import Session

from store.files import files
from store.job_status import JobStatus
from store.tables.base import Json
from store.tables.job import Checkpoint, Job, JobEvent

SCANNED_JOBS = 500  # newest jobs of the installation: enough to find some of a kind, however many there are
MAX_RUNS = 20  # runs of one base
REPORTED = ("started", "phase", "data_prepared")


@dataclass(frozen=True)
class MeasuredRun:
    """A job that one attempt brought to its end. Seconds are of the whole attempt and of two of its phases.

    ``pixels`` is the mean area of a training image; ``checkpoint_bytes`` is what one checkpoint takes.
    """

    spec: Json
    device: str
    seconds: float
    training_seconds: float
    caching_seconds: float
    steps: int
    effective_batch_size: int
    pairs: int
    pixels: float
    peak_memory_bytes: int
    result_bytes: int
    checkpoint_bytes: float

    @property
    def method(self) -> str:
        return str(self.spec["method"]["type"])


def of_base(session: Session, base: str) -> list[MeasuredRun]:
    """Newest first, of every project: they share the machines."""
    newest = select(Job.id).order_by(Job.id.desc()).limit(SCANNED_JOBS).scalar_subquery()
    found = select(Job).where(
        Job.id.in_(newest),
        Job.status == JobStatus.SUCCEEDED,
        Job.attempt == 1,
        Job.spec["base"]["name"].astext == base,
    )
    jobs = session.scalars(found.order_by(Job.id.desc()).limit(MAX_RUNS)).all()
    reported, progress, weights = (
        _reported_events(session, jobs),
        _progress_of(session, jobs),
        _checkpoint_bytes(session, jobs),
    )
    results = {file.id: file.bytes for file in files.by_ids(session, [one for job in jobs for one in job.result_files])}
    runs = [
        _run(
            job,
            reported[job.id],
            progress[job.id],
            sum(results[one] for one in job.result_files),
            weights.get(job.id, 0.0),
        )
        for job in jobs
        if job.id in reported and job.id in progress
    ]
    return [run for run in runs if run is not None]


def _reported_events(session: Session, jobs: Sequence[Job]) -> dict[str, list[JobEvent]]:
    """Each job's events of a few kinds, oldest first; the first is its claim."""
    query = select(JobEvent).where(
        JobEvent.job_id.in_([job.id for job in jobs]),
        JobEvent.data["event"].astext.in_(REPORTED) | (JobEvent.data["status"].astext == JobStatus.RUNNING),
    )
    found: dict[str, list[JobEvent]] = {}
    for event in session.scalars(query.order_by(JobEvent.sequence)):
        found.setdefault(event.job_id, []).append(event)
    return found


def _progress_of(session: Session, jobs: Sequence[Job]) -> dict[str, Row[str, int, int]]:
    """Each job's last step and peak memory."""
    step, peak = (func.max(cast(JobEvent.data[name].astext, BigInteger)) for name in ("step", "peak_memory_bytes"))
    query = select(JobEvent.job_id, step.label("step"), peak.label("peak")).where(
        JobEvent.job_id.in_([job.id for job in jobs]), JobEvent.data["event"].astext == "progress"
    )
    return {row.job_id: row for row in session.execute(query.group_by(JobEvent.job_id))}


def _checkpoint_bytes(session: Session, jobs: Sequence[Job]) -> dict[str, float]:
    query = select(Checkpoint.job_id, Checkpoint.manifest).where(Checkpoint.job_id.in_([job.id for job in jobs]))
    sizes: dict[str, list[int]] = {}
    for row in session.execute(query):
        sizes.setdefault(row.job_id, []).append(sum(file["bytes"] for file in row.manifest.values()))
    return {job_id: fmean(found) for job_id, found in sizes.items()}


def _run(
    job: Job, reported: Sequence[JobEvent], progress: Row[str, int, int], result_bytes: int, checkpoint_bytes: float
) -> MeasuredRun | None:
    """None for a job of an earlier version that did not report all of it."""
    data = [event.data or {} for event in reported]
    started = next((one for one in data if one.get("event") == "started"), None)
    prepared = next((one for one in reversed(data) if one.get("event") == "data_prepared"), None)
    claimed = next((event for event in reported if (event.data or {}).get("status") == JobStatus.RUNNING), None)
    if started is None or prepared is None or claimed is None or job.finished_at is None:
        return None
    return MeasuredRun(
        spec=job.spec,
        device=started["device"],
        seconds=(job.finished_at - claimed.created_at).total_seconds(),
        training_seconds=_phase_seconds(data, "training"),
        caching_seconds=_phase_seconds(data, "caching"),
        steps=progress.step,
        effective_batch_size=started["hyperparameters"]["step_size"],
        pairs=prepared["training_pairs"] + prepared["validation_pairs"],
        pixels=_mean_pixels(prepared["buckets"]),
        peak_memory_bytes=progress.peak,
        result_bytes=result_bytes,
        checkpoint_bytes=checkpoint_bytes,
    )


def _phase_seconds(data: Sequence[dict[str, Any]], phase: str) -> float:
    """A phase's time is reported on entering the next."""
    return float(sum(one["seconds"] for one in data if one.get("event") == "phase" and one["previous"] == phase))


def _mean_pixels(buckets: dict[str, int]) -> float:
    """``buckets``: "width x height" with the number of pairs."""
    areas = [(_area(size), count) for size, count in buckets.items()]
    return sum(area * count for area, count in areas) / sum(count for _, count in areas)


def _area(size: str) -> int:
    width, _, height = size.replace(" ", "").partition("x")
    return int(width) * int(height)
