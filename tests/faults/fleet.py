"""A whole deployment in processes of its own: each worker a host with a home and a way to PostgreSQL of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import psutil

from cli.local.embedded import Postgres, ServiceDidNotStart, Valkey
from cli.local.stack import celery as celery_worker
from store.settings import REPOSITORY
from tests.faults.proxy import Proxy, in_front_of
from worker.runtime import process

WORKERS, DISPATCHERS, APIS = 3, 2, 2
RESTART_SECONDS = 0.5


@dataclass
class Member:
    """One process of the deployment, started again when it has ended, as an operator's supervisor does."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    proxy: Proxy | None = None
    port: int | None = None
    process: Popen[bytes] | None = None
    _ended_at: float | None = None

    def start(self) -> None:
        self.process = process.start_logged(
            [sys.executable, "-m", *self.command], cwd=REPOSITORY, log=self.log, environment=self.environment
        )
        self._ended_at = None

    def restart_if_dead(self) -> None:
        if self.process is None or self.process.poll() is None:
            return
        self._ended_at = self._ended_at or time.monotonic()
        if time.monotonic() - self._ended_at > RESTART_SECONDS:
            self.start()

    def family(self) -> list[psutil.Process]:
        """The process and all below it, itself first; none when it has ended."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            itself = psutil.Process(self.process.pid)
            return [itself, *itself.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def trainers(self) -> list[psutil.Process]:
        return [one for one in self.family() if is_trainer(one)]

    def stop(self) -> None:
        if self.process is not None:
            for one in self.family():
                send(one, signal.SIGKILL)
            process.end_group(self.process)


@dataclass
class Fleet:
    home: Path
    postgres: Postgres
    valkey: Valkey
    workers: list[Member]
    intake: Member
    dispatchers: list[Member]
    apis: list[Member]
    blob_url: str
    down_until: dict[str, float] = field(default_factory=dict)

    @property
    def members(self) -> list[Member]:
        return [*self.workers, self.intake, *self.dispatchers, *self.apis]

    def postmaster(self) -> int | None:
        """Its process id, while PostgreSQL runs."""
        file = self.home / "postgres" / "postmaster.pid"
        return int(file.read_text().splitlines()[0]) if file.exists() else None

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{api.port}" for api in self.apis]

    def keep_up(self) -> None:
        """To be called again and again by one thread, that of the start: its children die with it."""
        for store in (self.postgres, self.valkey):
            if time.monotonic() > self.down_until.get(store.name, 0.0):
                try:
                    store.ensure_running()
                except ServiceDidNotStart:  # its predecessor is still going down
                    continue
        for member in self.members:
            member.restart_if_dead()


def is_trainer(one: psutil.Process) -> bool:
    try:
        command = one.cmdline()
    except psutil.Error:
        return False
    return "trainer" in command and "run" in command


def send(one: psutil.Process, number: signal.Signals) -> None:
    """A process that has ended meanwhile needs no signal."""
    try:
        one.send_signal(number)
    except psutil.NoSuchProcess:
        return


@contextmanager
def fleet(home: Path, postgres: Postgres, valkey: Valkey, **options: object) -> Iterator[Fleet]:
    """``options``: settings of all of them."""
    shared = {
        "database_url": postgres.url,
        "broker_url": valkey.url,
        "blob_url": f"file://{home / 'blobs'}",
        "bases_file": home / "bases.toml",
        **options,
    }
    with ExitStack() as cleanup:
        workers = []
        for number in range(WORKERS):
            proxy, url = cleanup.enter_context(in_front_of(postgres.url))
            host = _host(home, f"worker-{number}", celery("train", number), shared | {"database_url": url})
            host.proxy = proxy
            workers.append(host)
        deployed = Fleet(
            home=home,
            postgres=postgres,
            valkey=valkey,
            workers=workers,
            intake=_host(home, "intake", celery("intake", 0), shared),
            dispatchers=[_service(home, f"dispatcher-{n}", ["worker.dispatcher"], shared) for n in range(DISPATCHERS)],
            apis=[_api(home, n, shared) for n in range(APIS)],
            blob_url=str(shared["blob_url"]),
        )
        for member in deployed.members:
            member.start()
            cleanup.callback(member.stop)
        yield deployed


def celery(queue: str, number: int) -> list[str]:
    return [*celery_worker(queue, f"{queue}-{number}@%h")]


def _host(home: Path, name: str, command: list[str], settings: Mapping[str, object]) -> Member:
    folder = home / name
    folder.mkdir()
    return Member(name, command, _environment({**settings, "home": folder}), home / f"{name}.log")


def _service(home: Path, name: str, command: list[str], settings: Mapping[str, object]) -> Member:
    return Member(name, command, _environment({**settings, "home": home}), home / f"{name}.log")


def _api(home: Path, number: int, settings: Mapping[str, object]) -> Member:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = ["api.server", "--port", str(port)]
    member = _service(home, f"api-{number}", command, settings)
    member.port = port
    return member


def _environment(settings: Mapping[str, object]) -> dict[str, str]:
    """One thread a trainer: three of them share the cores with everything else."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PAIRTUNE_")}
    given = {f"PAIRTUNE_{name.upper()}": str(value) for name, value in settings.items()}
    return inherited | given | {"OMP_NUM_THREADS": "1"}
