"""``python -m benchmarks.api``: rates and latencies of a real uvicorn on loopback, as ratios within one run. Linux.

One job by id, queued and ended, against a bare FastAPI route with one indexed SELECT; the first page of jobs with a
million of them against a thousand; 500 followers of a job's events: the server's processor time and its connections.
"""

from __future__ import annotations

import argparse
import asyncio
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
from pathlib import Path

import httpx
from rich.console import Console
from sqlalchemy import text

from benchmarks.api.load import Loaded, follow, load
from store import jobs
from store.database import Sessions
from store.settings import REPOSITORY
from tests import servers
from tests.api.conftest import add_file
from tests.api.polling import until
from tests.api.serving import LISTENING, Live, serving

TURNS, SECONDS, CONNECTIONS = 5, 4.0, 8
FEW, MANY, FOLLOWERS = 1_000, 1_000_000, 500
COPY = """INSERT INTO jobs (id, project_id, status, spec, training_file_id, created_at)
    SELECT 'ftjob-0' || lpad(n::text, 31, '0'), project_id, 'cancelled', spec, training_file_id, created_at
    FROM jobs, generate_series(CAST(:first AS int), CAST(:last AS int)) AS n WHERE jobs.id = :id"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--jobs", type=int, default=MANY, help="in the longer list")
    given = parser.parse_args()
    console = Console(highlight=False)
    with (
        tempfile.TemporaryDirectory() as home,
        servers.postgres() as database,
        servers.valkey() as broker,
        serving(Path(home), database, broker) as live,
    ):
        job_id = created(live)
        one_job(live, job_id, "queued", console)
        one_job(live, ended(live), "ended", console)
        followers(live, console)
        lists(live, job_id, given.jobs, console)
    return 0


def created(live: Live) -> str:
    """A job as a client makes it, on a file that nobody reads."""
    file = add_file(live.sessions, live.tenant.id)
    headers = {"authorization": f"Bearer {live.tenant.api_key}"}
    asked = {"model": "tiny", "training_file": file.id}
    answer = httpx.post(f"{live.url}/v1/fine_tuning/jobs", json=asked, headers=headers)
    return str(answer.raise_for_status().json()["id"])


def ended(live: Live) -> str:
    """A job as it is read for as long as it is kept."""
    job_id = created(live)
    with live.sessions.begin() as session:
        jobs.cancel(session, live.tenant.id, job_id)
    return job_id


def one_job(live: Live, job_id: str, what: str, console: Console) -> None:
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
    spread = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    console.print(f"one job, {what}: {our_rate:.0f} a second, a bare route {plain_rate:.0f}: {spread}, must reach 0.8")


def lists(live: Live, job_id: str, many: int, console: Console) -> None:
    latencies = {}
    filled = 1
    for count in (FEW, many):
        with live.sessions.begin() as session:
            session.execute(text(COPY), {"first": filled, "last": count, "id": job_id})
        filled = count + 1
        analyze(live.sessions)
        found = load(
            live.port, "/v1/fine_tuning/jobs?limit=20", live.tenant.api_key, connections=2, seconds=3 * SECONDS
        )
        latencies[count] = found.quantile(0.99)
        median = found.quantile(0.5)
        console.print(
            f"list of 20 with {count:,} jobs: p50 {1000 * median:.1f} ms, p99 {1000 * latencies[count]:.1f} ms"
        )
    console.print(f"  p99 ratio {latencies[many] / latencies[FEW]:.2f}; must stay below 2")


def analyze(sessions: Sessions) -> None:
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        session.execute(text("ANALYZE jobs"))


def followers(live: Live, console: Console) -> None:
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
    console.print(
        f"{kept[0]} followers: {100 * (busy - idle):.1f}% of a core more than {100 * idle:.1f}% (below 5% wanted), and "
        f"{with_followers - before} database connections more"
    )


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
