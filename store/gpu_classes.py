"""Which training workers hear of which jobs: by the device memory that a job needs and a worker has.

A job that needs none in particular is in the queue that every training worker hears; another is in the queue of the
smallest class that holds it, which workers hear that have as much. A worker still takes whatever job it can, in the
order of the line: one that is small passes over what does not fit, and nothing else is changed by it.
"""

from __future__ import annotations

CLASSES = (8, 12, 16, 24, 32, 48, 80, 96, 141, 192, 288)  # GiB of the usual devices
MAX_MEMORY = CLASSES[-1]
TRAIN = "train"


def queue_of(memory_gib: int | None) -> str:
    """Of a job that needs so much; None: any worker will do."""
    if memory_gib is None:
        return TRAIN
    return _name(next(size for size in CLASSES if size >= memory_gib))


def queues_for(memory_gib: int | None) -> list[str]:
    """By a worker with so much; None: it takes every job."""
    return [TRAIN, *(_name(size) for size in CLASSES if memory_gib is None or size <= memory_gib)]


def _name(size: int) -> str:
    return f"{TRAIN}-{size}g"
