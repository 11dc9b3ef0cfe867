"""Doing a fault to a running deployment, and undoing it where that is part of the fault."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import psutil
import redis
from sqlalchemy import select

from store.database import Sessions
from store.hints import Hints
from store.job_status import JobStatus
from store.tables.job import Job
from tests.faults.fleet import Fleet, Member, is_trainer, send
from tests.faults.schedule import Fault, Kind

Target = TypeVar("Target")
REPEATS = 20


class Inflictor:
    """``inflict`` returns whether the fault found its target. What lasts is undone by a timer."""

    def __init__(self, fleet: Fleet, sessions: Sessions) -> None:
        self._fleet, self._sessions = fleet, sessions
        self._acts: dict[Kind, Callable[[Fault], bool]] = {
            Kind.KILL_WORKER: lambda fault: self._signal(fault, self._fleet.workers, signal.SIGKILL),
            Kind.KILL_INTAKE: lambda fault: self._signal(fault, [self._fleet.intake], signal.SIGKILL),
            Kind.KILL_DISPATCHER: lambda fault: self._signal(fault, self._fleet.dispatchers, signal.SIGKILL),
            Kind.KILL_API: lambda fault: self._signal(fault, self._fleet.apis, signal.SIGKILL),
            Kind.TERMINATE_WORKER: lambda fault: self._signal(fault, self._fleet.workers, signal.SIGTERM),
            Kind.KILL_POOL: self._kill_pool,
            Kind.KILL_TRAINER: lambda fault: self._kill(chosen(self._trainers(), fault)),
            Kind.FREEZE_TRAINER: lambda fault: self._freeze(fault, self._one_trainer(fault)),
            Kind.FREEZE_WORKER: lambda fault: self._freeze(fault, self._busy_family(fault, with_trainer=False)),
            Kind.FREEZE_HOST: lambda fault: self._freeze(fault, self._busy_family(fault, with_trainer=True)),
            Kind.FREEZE_DISPATCHER: lambda fault: self._freeze(fault, self._family(fault, self._fleet.dispatchers)),
            Kind.FREEZE_API: lambda fault: self._freeze(fault, self._family(fault, self._fleet.apis)),
            Kind.PARTITION: self._partition,
            Kind.STOP_DATABASE: self._stop_database,
            Kind.FLUSH_BROKER: self._flush,
            Kind.KILL_BROKER: self._kill_broker,
            Kind.REPEAT_HINTS: self._repeat_hints,
        }

    def inflict(self, fault: Fault) -> bool:
        return self._acts[fault.kind](fault)

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, undo)
        timer.daemon = True
        timer.start()

    def _trainers(self) -> list[psutil.Process]:
        return [trainer for worker in self._fleet.workers for trainer in worker.trainers()]

    def _one_trainer(self, fault: Fault) -> list[psutil.Process]:
        trainer = chosen(self._trainers(), fault)
        return [trainer] if trainer is not None else []

    def _family(self, fault: Fault, members: Sequence[Member]) -> list[psutil.Process]:
        member = chosen(members, fault)
        return member.family() if member is not None else []

    def _busy(self) -> list[Member]:
        return [worker for worker in self._fleet.workers if worker.trainers()]

    def _busy_family(self, fault: Fault, *, with_trainer: bool) -> list[psutil.Process]:
        return [one for one in self._family(fault, self._busy()) if with_trainer or not is_trainer(one)]

    def _signal(self, fault: Fault, members: Sequence[Member], number: signal.Signals) -> bool:
        family = self._family(fault, members)
        if family:
            send(family[0], number)
        return bool(family)

    def _kill(self, victim: psutil.Process | None) -> bool:
        if victim is not None:
            send(victim, signal.SIGKILL)
        return victim is not None

    def _kill_pool(self, fault: Fault) -> bool:
        """The child that runs the task; Celery starts another."""
        family = self._busy_family(fault, with_trainer=False)
        return self._kill(family[1] if len(family) > 1 else None)

    def _freeze(self, fault: Fault, family: list[psutil.Process]) -> bool:
        for one in family:
            send(one, signal.SIGSTOP)

        def thaw() -> None:
            for one in family:
                send(one, signal.SIGCONT)

        self._later(fault.seconds, thaw)
        return bool(family)

    def _partition(self, fault: Fault) -> bool:
        worker = chosen(self._busy(), fault)
        if worker is None or worker.proxy is None:
            return False
        worker.proxy.fall_silent()
        self._later(fault.seconds, worker.proxy.speak)
        return True

    def _stop_database(self, fault: Fault) -> bool:
        """What ``pg_ctl stop -m immediate`` does: no checkpoint, no goodbye."""
        pid = self._fleet.postmaster()
        self._fleet.down_until[self._fleet.postgres.name] = time.monotonic() + fault.seconds
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
        return pid is not None

    def _flush(self, _: Fault) -> bool:
        with self._broker() as client:
            client.flushall()
        return True

    def _kill_broker(self, fault: Fault) -> bool:
        with self._broker() as client:
            pid = int(client.info("server")["process_id"])
        self._fleet.down_until[self._fleet.valkey.name] = time.monotonic() + fault.seconds
        os.kill(pid, signal.SIGKILL)
        return True

    def _broker(self) -> redis.Redis:
        """Without patience: who waits here for a broker that is down keeps it from being started."""
        return redis.Redis(unix_socket_path=self._fleet.valkey.url.removeprefix("redis+socket://"))

    def _repeat_hints(self, fault: Fault) -> bool:
        with self._sessions() as session:
            live = list(session.scalars(select(Job.id).where(Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))))
        job_id = chosen(sorted(live), fault)
        if job_id is None:
            return False
        hints = Hints(self._fleet.valkey.url)
        return all(hints.train(job_id) for _ in range(REPEATS))


def chosen(targets: Sequence[Target], fault: Fault) -> Target | None:
    return targets[fault.which % len(targets)] if targets else None
