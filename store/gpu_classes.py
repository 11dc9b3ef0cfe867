"""Celery queues by device memory: the hint of a job goes to workers whose memory holds the job.

A job without a memory need is in the queue that every training worker consumes. Any other job is in the queue of the
smallest class that holds it, which the workers with at least as much memory consume.

A hint does not choose the job: a worker claims the first job of store/jobs/queue.py that fits into its memory.
"""

from __future__ import annotations

CLASSES = (8, 12, 16, 24, 32, 48, 80, 96, 141, 192, 288)  # GiB of the usual devices
MAX_MEMORY = CLASSES[-1]
TRAIN = "train"


def queue_of(memory_gib: int | None) -> str:
    """The queue of a job that needs ``memory_gib``; None: any worker will do."""
    if memory_gib is None:
        return TRAIN
    return _name(next(size for size in CLASSES if size >= memory_gib))


def queues_for(memory_gib: int | None) -> list[str]:
    """The queues that a worker with ``memory_gib`` consumes; None: it takes every job."""
    return [TRAIN, *(_name(size) for size in CLASSES if memory_gib is None or size <= memory_gib)]


def _name(size: int) -> str:
    return f"{TRAIN}-{size}g"
