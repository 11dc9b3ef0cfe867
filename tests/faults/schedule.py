"""Which faults come when: drawn from a seed alone, so that a run can be had again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to whom."""

    KILL_WORKER = "kill -9 of a training worker"
    KILL_POOL = "kill -9 of a worker's pool process"
    KILL_TRAINER = "kill -9 of a trainer"
    KILL_INTAKE = "kill -9 of the intake worker"
    KILL_DISPATCHER = "kill -9 of a dispatcher"
    KILL_API = "kill -9 of an API process"
    TERMINATE_WORKER = "SIGTERM of a training worker"
    FREEZE_WORKER = "worker stopped past its lease, its trainer running"
    FREEZE_HOST = "worker and trainer stopped past the lease"
    FREEZE_TRAINER = "trainer stopped, its worker running"
    FREEZE_DISPATCHER = "dispatcher stopped"
    FREEZE_API = "API process stopped"
    PARTITION = "worker cut off from PostgreSQL past its lease"
    STOP_DATABASE = "PostgreSQL stopped at once and started"
    FLUSH_BROKER = "Valkey flushed"
    KILL_BROKER = "kill -9 of Valkey and start"
    REPEAT_HINTS = "the same message 20 times"


@dataclass(frozen=True)
class Fault:
    """``at``: seconds from the start. ``which``: of several targets, the one with this number modulo their count.

    ``seconds``: how long it lasts, for what lasts.
    """

    at: float
    kind: Kind
    which: int
    seconds: float


def schedule(seed: int, *, seconds: float, every: float, lease_seconds: float, stall_seconds: float) -> list[Fault]:
    """A fault ``every`` so many seconds on average. Every kind comes once before any comes again."""
    draw = random.Random(seed)
    faults: list[Fault] = []
    deck: list[Kind] = []
    at = draw.uniform(2, 5)
    while at < seconds:
        if not deck:
            deck = list(Kind)
            draw.shuffle(deck)
        kind = deck.pop()
        lasts = _duration(draw, kind, lease_seconds=lease_seconds, stall_seconds=stall_seconds)
        faults.append(Fault(round(at, 2), kind, draw.randrange(60), round(lasts, 2)))
        at += draw.uniform(0.4 * every, 1.6 * every)
    return faults


def _duration(draw: random.Random, kind: Kind, *, lease_seconds: float, stall_seconds: float) -> float:
    if kind in (Kind.FREEZE_WORKER, Kind.FREEZE_HOST, Kind.PARTITION):
        return lease_seconds + draw.uniform(4, 10)  # another has taken the job over by the end
    if kind is Kind.FREEZE_TRAINER:
        return stall_seconds + 5
    if kind in (Kind.FREEZE_DISPATCHER, Kind.FREEZE_API):
        return draw.uniform(4, 10)
    if kind in (Kind.STOP_DATABASE, Kind.KILL_BROKER):
        return draw.uniform(0.5, 4)
    return 0.0
