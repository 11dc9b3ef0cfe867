"""``python -m benchmarks.api``: rates and latencies of a real uvicorn on loopback, as ratios within one run. Linux.

One job by id, queued and ended, against a bare FastAPI route with one indexed SELECT; the first page of jobs, all and
by metadata, with a million of them against a thousand; 500 followers of a job's events: the server's processor time
and its connections. Writes benchmarks/results/api.json; exits 1 when a figure misses what it must reach.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from sqlalchemy import text

from benchmarks.api.load import Loaded, follow, load
from store.database import Sessions
from store.jobs import jobs
from store.settings import REPOSITORY
from tests import servers
from tests.api.conftest import add_file
from tests.api.polling import until
from tests.api.serving import LISTENING, Live, serving

TURNS, SECONDS, CONNECTIONS = 5, 4.0, 8
FEW, MANY, FOLLOWERS = 1_000, 1_000_000, 500
RESULT = Path("benchmarks/results/api.json")
COPY = """INSERT INTO jobs (id, project_id, status, spec, training_file_id, created_at, job_metadata)
    SELECT 'ftjob-0' || lpad(n::text, 31, '0'), project_id, 'cancelled', spec, training_file_id, created_at,
        jsonb_build_object('team', 'red', 'run', n::text)
    FROM jobs, generate_series(CAST(:first AS int), CAST(:last AS int)) AS n WHERE jobs.id = :id"""


# One that is held by all, by the oldest job alone, by none.
QUERIES = {
    "of all": "",
    "that all hold": "&metadata[team]=red",
    "that one holds": "&metadata[run]=1",
    "that none holds": "&metadata[run]=x",
}


@dataclass(frozen=True)
class Figure:
    """A ratio within this run, and between which bounds it must be; ``detail`` has what it was made from."""

    what: str
    value: float
    detail: str
    least: float | None = None
    most: float | None = None

    def wanted(self) -> str:
        bounds = (("at least", self.least), ("at most", self.most))
        return "".join(f", {which} {bound:g}" for which, bound in bounds if bound is not None)

    def reached(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--jobs", type=int, default=MANY, help="in the longer list")
    given = parser.parse_args()
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory() as home,
        servers.postgres() as database,
        servers.valkey() as broker,
        serving(Path(home), database, broker) as live,
    ):
        job_id = created(live)
        for measured in (
            one_job(live, job_id, "queued"),
            one_job(live, ended(live), "ended"),
            followers(live),
            lists(live, job_id, given.jobs),
        ):
            for figure in measured:
                figures.append(figure)
                wanted = (
                    f", at least {figure.least}" if figure.least else f", at most {figure.most}" if figure.most else ""
                )
                print(f"{figure.what}: {figure.value:.3g}{wanted} ({figure.detail})", flush=True)
    RESULT.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0 if all(figure.reached() for figure in figures) else 1


def created(live: Live) -> str:
    """A job as a client makes it, on a file that nobody reads."""
    file = add_file(live.sessions, live.tenant.id)
    headers = {"authorization": f"Bearer {live.tenant.api_key}"}
    request = {"model": "tiny", "training_file": file.id}
    answer = httpx.post(f"{live.url}/v1/fine_tuning/jobs", json=request, headers=headers)
    return str(answer.raise_for_status().json()["id"])


def ended(live: Live) -> str:
    """A job as it is read for as long as it is stored."""
    job_id = created(live)
    with live.sessions.begin() as session:
        jobs.cancel(session, live.tenant.id, job_id)
    return job_id


def one_job(live: Live, job_id: str, what: str) -> Iterator[Figure]:
    with bare(live) as port:
        turns: list[tuple[Loaded, Loaded]] = []
        for _ in range(TURNS + 1):  # the first warms both up
            plain = load(port, f"/jobs/{job_id}", "", connections=CONNECTIONS, seconds=SECONDS)
            ours = load(
                live.port,
                f"/v1/fine_tuning/jobs/{job_id}",
                live.tenant.api_key,
                connections=CONNECTIONS,
                seconds=SECONDS,
            )
            turns.append((plain, ours))
    ratios = [ours.rate / plain.rate for plain, ours in turns[1:]]
    plain_rate, our_rate = (statistics.median(turn[which].rate for turn in turns[1:]) for which in (0, 1))
    low, middle, high = statistics.quantiles(ratios, n=4)
    detail = f"quartiles {low:.2f} to {high:.2f}; {our_rate:.0f} and {plain_rate:.0f} a second"
    yield Figure(f"one job, {what}, rate / a bare route's", middle, detail, least=0.8)


def lists(live: Live, job_id: str, many: int) -> Iterator[Figure]:
    found: dict[tuple[str, int], Loaded] = {}
    filled = 1
    for count in (FEW, many):
        with live.sessions.begin() as session:
            session.execute(text(COPY), {"first": filled, "last": count, "id": job_id})
        filled = count + 1
        analyze(live.sessions)
        for what, query in QUERIES.items():
            path = f"/v1/fine_tuning/jobs?limit=20{query}"
            found[what, count] = load(live.port, path, live.tenant.api_key, connections=2, seconds=3 * SECONDS)
    for what in QUERIES:
        few, more = (found[what, count] for count in (FEW, many))
        detail = "; ".join(
            f"{count:,} jobs: p50 {1000 * one.quantile(0.5):.1f} ms, p99 {1000 * one.quantile(0.99):.1f} ms"
            for count, one in ((FEW, few), (many, more))
        )
        ratio = more.quantile(0.99) / few.quantile(0.99)
        yield Figure(
            f"20 jobs {what}, p99 with {many:,} / with {FEW:,}", ratio, detail, most=None if QUERIES[what] else 2
        )


def analyze(sessions: Sessions) -> None:
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        session.execute(text("ANALYZE jobs"))


def followers(live: Live) -> Iterator[Figure]:
    """Processor time over so many seconds without and with followers of a job in which nothing happens."""
    path = f"/v1/fine_tuning/jobs/{created(live)}/events/stream"
    span = 4 * SECONDS
    idle = processor_share(live.pid, span)
    before = connections(live.sessions)
    kept: list[int] = []
    held = threading.Thread(
        target=lambda: kept.append(asyncio.run(follow(live.port, path, live.tenant.api_key, FOLLOWERS, 2 * span)))
    )
    held.start()
    time.sleep(span / 2)  # until all are there and have their first events
    busy = processor_share(live.pid, span)
    with_followers = connections(live.sessions)
    held.join()
    load_more = f"{100 * idle:.1f}% of a core before"
    yield Figure(f"{kept[0]} followers, share of a core more", busy - idle, load_more, most=0.05)
    held_by = f"{before} connections before"
    yield Figure(f"{kept[0]} followers, database connections more", with_followers - before, held_by, most=5)


def processor_share(pid: int, seconds: float) -> float:
    """Of one core, of the process over so many seconds."""
    before, started = processor_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (processor_seconds(pid) - before) / (time.monotonic() - started)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime and stime


def connections(sessions: Sessions) -> int:
    with sessions() as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return int(session.scalar(text(query)) or 0)


@contextmanager
def bare(live: Live) -> Iterator[int]:
    """The bare application on the same database, served the same way; yields its port."""
    with live.sessions() as session:
        url = session.get_bind().engine.url.render_as_string(hide_password=False)
    with tempfile.NamedTemporaryFile() as log:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "benchmarks.api.bare:create_app",
            "--no-access-log",
            "--port",
            "0",
        ]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | {"BENCHMARK_DATABASE_URL": url}, stderr=log
        )
        try:
            until(lambda: LISTENING.search(Path(log.name).read_text()) is not None, seconds=60)
            found = re.search(LISTENING, Path(log.name).read_text())
            assert found is not None
            yield int(found.group(1))
        finally:
            process.terminate()
            process.wait(timeout=20)


if __name__ == "__main__":
    sys.exit(main())
