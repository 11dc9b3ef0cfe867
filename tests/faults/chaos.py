"""``python -m tests.faults.chaos [--minutes 10] [--seed N]``: a deployment at work, a fault every few seconds.

Real PostgreSQL and Valkey, three training workers, an intake worker, two dispatchers, two API processes, users who
submit, cancel, pause and resume. Then nothing more is broken, everything is given time to end, and the event log,
the blobs and the users' answers are judged. The same seed draws the same faults at the same seconds. Exits 1 when
anything was violated.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError
from sqlalchemy.exc import OperationalError

from cli.local.embedded import Postgres, Valkey
from migrations.upgrade import upgrade
from store.blobs.blobs import Blobs
from store.database import Sessions, open_engine, open_sessions
from tests.conftest import make_tenant
from tests.faults.fleet import Fleet, fleet
from tests.faults.inflict import Inflictor
from tests.faults.schedule import Fault, Kind, schedule
from tests.faults.users import Users
from tests.faults.verdict import Verdict, verdict
from tests.trainer.tiny_sdxl import save_base
from tests.worker.pairs import archive_of

LEASE, STALL = 6.0, 30.0  # starting torch three times at once on two busy cores is silent for a while
# Nothing is anybody's fault here, so that no number of crashes may fail a job.
SETTINGS = {
    "lease_seconds": LEASE,
    "heartbeat_seconds": 1.0,
    "dispatch_seconds": 0.5,
    "republish_seconds": 2.0,
    "grace_seconds": 10.0,
    "stall_seconds": STALL,
    "crash_cap": 1000,
}
DRAIN = 300.0  # seconds in which all that was accepted has to end once nothing is broken any more
START = 90.0  # seconds from the start of the processes to the first trainer
TICK = 0.1
UNREACHABLE = (RedisError, OperationalError, ProcessLookupError)

Say = Callable[[str], None]


def run(seed: int, *, seconds: float, every: float, home: Path, say: Say = print) -> Verdict:
    """``every``: seconds from one fault to the next, on average.

    ``home``: an empty directory with a short path, for it holds sockets.
    """
    home.chmod(0o755)  # as root, PostgreSQL runs as another user
    (home / "bases.toml").write_text('[[base]]\nname = "tiny"\nfamily = "sdxl"\nsource = "./tiny"\n')
    save_base(home / "tiny")
    faults = schedule(seed, seconds=seconds, every=every, lease_seconds=LEASE, stall_seconds=STALL)
    with services(home) as (postgres, valkey):
        upgrade(postgres.url)
        engine = open_engine(postgres.url)
        sessions = open_sessions(engine)
        tenant = make_tenant(sessions, "chaos")
        with fleet(home, postgres, valkey, **SETTINGS) as deployed:
            users = Users(deployed.urls, tenant.api_key, archive_of(rejected=True), seed=seed)
            users.start()
            try:
                injected, missed = break_things(deployed, sessions, faults, users, say)
                drain(deployed, users, say)
            finally:
                users.close()
            with sessions() as session:
                found = verdict(
                    session,
                    Blobs(deployed.blob_url),
                    users.accepted,
                    injected=injected,
                    missed=missed,
                    longest_answer=users.longest_wait,
                )
        engine.dispose()
    return found


def break_things(
    deployed: Fleet, sessions: Sessions, faults: list[Fault], users: Users, say: Say
) -> tuple[Counter[Kind], Counter[Kind]]:
    """Returns what was injected, and what had no target when its time came."""
    injected, missed = Counter[Kind](), Counter[Kind]()
    await_work(deployed, users)
    inflictor, waiting, began = Inflictor(deployed, sessions), list(faults), time.monotonic()
    while waiting and users.failure is None:
        deployed.keep_up()
        if time.monotonic() - began > waiting[0].at:
            fault = waiting.pop(0)
            hit = attempted(inflictor, fault)
            (injected if hit else missed)[fault.kind] += 1
            say(f"{time.monotonic() - began:7.1f} s  {fault.kind}{'' if hit else ' (no target)'}")
        time.sleep(TICK)
    users.submit_no_more()  # what lasts goes on to its end
    return injected, missed


def await_work(deployed: Fleet, users: Users) -> None:
    """Until the first trainer runs: before that there is little to break."""
    deadline = time.monotonic() + START
    while not any(worker.trainers() for worker in deployed.workers) and users.failure is None:
        assert time.monotonic() < deadline, "no trainer was started"
        deployed.keep_up()
        time.sleep(TICK)


def attempted(inflictor: Inflictor, fault: Fault) -> bool:
    """What another fault has just taken down is no target."""
    try:
        return inflictor.inflict(fault)
    except UNREACHABLE:
        return False


def drain(deployed: Fleet, users: Users, say: Say) -> None:
    deadline = time.monotonic() + DRAIN
    while not users.all_ended and users.failure is None and time.monotonic() < deadline:
        deployed.keep_up()
        time.sleep(TICK)
    say(f"drained with {deadline - time.monotonic():.0f} s to spare")
    if users.failure is not None:
        raise users.failure


@contextmanager
def services(home: Path) -> Iterator[tuple[Postgres, Valkey]]:
    postgres = Postgres(home)
    try:
        valkey = Valkey(home)
        try:
            yield postgres, valkey
        finally:
            valkey.stop()
    finally:
        postgres.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long things are broken")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to have its faults again")
    parser.add_argument("--every", type=float, default=4.0, help="seconds from one fault to the next, on average")
    parser.add_argument("--keep", type=Path, default=None, help="a directory for all state and logs, to be kept")
    requested = parser.parse_args()
    seed = requested.seed if requested.seed is not None else random.randrange(10**6)
    again = f"--minutes {requested.minutes:g} --every {requested.every:g} --seed {seed}"
    print(f"To have these faults again: python -m tests.faults.chaos {again}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pt-") as temporary:
        home = requested.keep or Path(temporary)
        home.mkdir(exist_ok=True)
        found = run(
            seed, seconds=60 * requested.minutes, every=requested.every, home=home, say=partial(print, flush=True)
        )
    print(found.table())
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
