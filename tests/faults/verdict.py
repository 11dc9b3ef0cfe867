"""What a run of faults came to: what was broken, what became of the jobs, how long it took and what work was lost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from safetensors.numpy import load
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.blobs.blobs import Blobs
from store.errors import BlobMissing
from store.files import files
from store.job_status import JobStatus
from store.tables.file import File
from store.tables.job import Checkpoint, Job, JobEvent
from tests.faults.checker import violations
from tests.faults.schedule import Kind

ADAPTER = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Recovery:
    """An attempt that was lost or given back. Seconds from its last word: to the queue, and to the next claim.

    ``lost_steps``: those that it had reported and that the next attempt did again.
    """

    to_queue: float
    to_claim: float
    lost_steps: int


@dataclass(frozen=True)
class Verdict:
    injected: Counter[Kind]
    missed: Counter[Kind]
    accepted: int
    ended: Counter[str]
    attempts: int
    recoveries: Sequence[Recovery]
    longest_answer: float
    violations: Sequence[str]

    def table(self) -> str:
        lines = [f"{'fault':<55}{'injected':>9}{'no target':>11}"]
        lines += [f"{kind:<55}{self.injected[kind]:>9}{self.missed[kind]:>11}" for kind in Kind]
        lines += [f"{'all':<55}{self.injected.total():>9}{self.missed.total():>11}", ""]
        ended = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()))
        steps = [one.lost_steps for one in self.recoveries]
        lines += [
            f"jobs accepted {self.accepted}; ended {self.ended.total()} ({ended}); attempts {self.attempts}",
            f"attempts lost or given back {len(self.recoveries)}; from the last word of one",
            f"    until the job was queued again: {_spread([one.to_queue for one in self.recoveries])}",
            f"    until the next claim, a wait for a free worker included: "
            f"{_spread([one.to_claim for one in self.recoveries])}",
            f"work lost, of the reported steps: {sum(steps)} in all, {max(steps, default=0)} at most at once",
            f"longest time until a request was answered: {self.longest_answer:.1f} s",
            f"violations: {len(self.violations)}",
            *(f"  {sentence}" for sentence in self.violations),
        ]
        return "\n".join(lines)


def verdict(
    session: Session,
    blobs: Blobs,
    accepted: Sequence[str],
    *,
    injected: Counter[Kind],
    missed: Counter[Kind],
    longest_answer: float,
) -> Verdict:
    made = list(session.scalars(select(Job).order_by(Job.id)))
    return Verdict(
        injected=injected,
        missed=missed,
        accepted=len(accepted),
        ended=Counter(job.status for job in made),
        attempts=sum(job.attempt for job in made),
        recoveries=[one for job in made for one in recoveries(_log(session, job.id))],
        longest_answer=longest_answer,
        violations=[
            *violations(session, all_ended=True),
            *_promises(made, accepted),
            *_checkpoints(session, blobs),
            *_adapters(session, blobs, made),
        ],
    )


def recoveries(log: Sequence[JobEvent]) -> Iterator[Recovery]:
    """Of every two attempts between which nobody had paused the job."""
    claims = [event for event in log if _status(event) == JobStatus.RUNNING]
    for before, after in pairwise(claims):
        own = [event for event in log if event.attempt == before.attempt and event.sequence < after.sequence]
        between = [event for event in log if before.sequence < event.sequence < after.sequence]
        if any(_status(event) == JobStatus.PAUSED for event in between):
            continue
        said = [event for event in own if _status(event) in (None, JobStatus.RUNNING)][-1].created_at
        queued = [event for event in between if _status(event) == JobStatus.QUEUED][-1].created_at
        reached = max(_step(event) for event in own)
        # The next attempt may end before it says from where it goes on; then a later one does.
        resumed = [_resumed(event) for event in log if event.sequence > after.sequence]
        going_on_from = next((step for step in resumed if step is not None), reached)
        yield Recovery(
            to_queue=(queued - said).total_seconds(),
            to_claim=(after.created_at - said).total_seconds(),
            lost_steps=max(0, reached - going_on_from),
        )


def _promises(made: Sequence[Job], accepted: Sequence[str]) -> Iterator[str]:
    """Each accepted create made one job, and nothing else made any; no fault of a machine is the job's fault."""
    ids = {job.id for job in made}
    if len(set(accepted)) != len(accepted):
        yield "two creates were answered with the same job"
    for job_id in sorted(set(accepted) - ids):
        yield f"{job_id}: was accepted and is not there"
    for job_id in sorted(ids - set(accepted)):
        yield f"{job_id}: is there and was never accepted"
    for job in made:
        if job.status == JobStatus.FAILED:
            yield f"{job.id}: failed: {job.error}"


def _checkpoints(session: Session, blobs: Blobs) -> Iterator[str]:
    for checkpoint in session.scalars(select(Checkpoint)):
        for name, entry in checkpoint.manifest.items():
            fault = _damage(blobs, entry["sha256"], entry["bytes"])
            if fault is not None:
                yield f"{checkpoint.job_id}: checkpoint at step {checkpoint.step}: {name} {fault}"


def _adapters(session: Session, blobs: Blobs, made: Sequence[Job]) -> Iterator[str]:
    """Bytes are those of the manifest; and equal specs on equal data end in equal weights, whatever came between."""
    weights = Counter[str]()
    for job in made:
        results = _results(session, job)
        if job.status == JobStatus.SUCCEEDED and ADAPTER not in results:
            yield f"{job.id}: succeeded without an adapter"
        for name, file in results.items():
            fault = _damage(blobs, file.sha256, file.bytes)
            if fault is not None:
                yield f"{job.id}: {name} {fault}"
        if ADAPTER in results:
            weights[weights_of(session, blobs, job)] += 1
    if len(weights) > 1:
        yield f"jobs of one specification ended with different adapters: {dict(weights)}"


def _results(session: Session, job: Job) -> dict[str, File]:
    return {file.filename: file for file in files.by_ids(session, job.result_files)}


def weights_of(session: Session, blobs: Blobs, job: Job) -> str:
    """A digest of the adapter's tensors alone: the order of a header's metadata is of no meaning, and safetensors draws
    it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load(blobs.read(_results(session, job)[ADAPTER].sha256)).items()):
        digest.update(name.encode() + tensor.tobytes())
    return digest.hexdigest()[:12]


def _damage(blobs: Blobs, sha256: str, size: int) -> str | None:
    try:
        content = blobs.read(sha256)
    except BlobMissing:
        return "is missing"
    if (hashlib.sha256(content).hexdigest(), len(content)) != (sha256, size):
        return "has other bytes than its manifest says"
    return None


def _log(session: Session, job_id: str) -> list[JobEvent]:
    return list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence)))


def _status(event: JobEvent) -> str | None:
    return (event.data or {}).get("status")


def _step(event: JobEvent) -> int:
    return int((event.data or {}).get("step", 0)) if event.type == "metrics" else 0


def _resumed(event: JobEvent) -> int | None:
    return (event.data or {}).get("resumed_from_step")


def _spread(seconds: Sequence[float]) -> str:
    middle = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
    return f"longest {max(seconds, default=0.0):.1f} s, median {middle:.1f} s"
