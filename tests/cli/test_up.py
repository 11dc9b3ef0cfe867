"""`pairtune up` as a user has it: one command, one home, and nothing left afterwards."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cli.stack import _local_limits
from store.settings import REPOSITORY, Settings
from tests.api.polling import until

pytestmark = pytest.mark.integration

READY = 90.0  # seconds, on a machine that may be busy
SERVICES = 5  # API, dispatcher, three workers


@pytest.mark.parametrize(
    ("given", "unlimited"),
    [({}, True), ({"host": "10.0.0.1"}, False), ({"requests_per_minute": 5}, False), ({"host": "localhost"}, True)],
)
def test_only_whoever_is_on_this_machine_may_send_without_limit(given: dict[str, object], unlimited: bool) -> None:
    found = _local_limits(Settings.model_validate(given))
    assert found == ({"PAIRTUNE_REQUESTS_PER_MINUTE": "none"} if unlimited else {})


class Home:
    """A home directory with a port of its own, and the `up`s that were started in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "tiny").mkdir(parents=True)
        (path / "bases.toml").write_text('[[base]]\nname = "tiny"\nfamily = "sdxl"\nsource = "./tiny"\n')
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.started: list[psutil.Popen] = []

    def up(self, **variables: str) -> psutil.Popen:
        """Its output goes to a file named for its number: up-0, up-1, ..."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PAIRTUNE_")},
            "PAIRTUNE_HOME": str(self.path),
            "PAIRTUNE_PORT": str(self.port),
            "PAIRTUNE_BASES_FILE": "bases.toml",  # relative to where the user is
            **variables,
        }
        with (self.path / f"up-{len(self.started)}").open("wb") as output:
            self.started.append(
                psutil.Popen(
                    [sys.executable, "-m", "cli.main", "up"],
                    cwd=self.path,
                    env={**environment, "PYTHONPATH": str(REPOSITORY)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        return self.started[-1]

    def printed(self, number: int) -> str:
        return (self.path / f"up-{number}").read_text()

    def get(self, path: str) -> httpx.Response | None:
        key = (self.path / "local.key").read_text().strip() if (self.path / "local.key").exists() else ""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers={"authorization": f"Bearer {key}"})
        except httpx.TransportError:
            return None

    def ready(self) -> bool:
        answer = self.get("/readyz")
        return answer is not None and answer.is_success

    def postmaster(self) -> psutil.Process | None:
        file = self.path / "postgres" / "postmaster.pid"
        pid = int(file.read_text().splitlines()[0]) if file.exists() else None
        return psutil.Process(pid) if pid is not None and psutil.pid_exists(pid) else None

    def close(self) -> None:
        for one in self.started:
            if one.poll() is None:
                one.send_signal(signal.SIGINT)
                one.wait(60)
        postmaster = self.postmaster()
        if postmaster is not None:
            postmaster.send_signal(signal.SIGINT)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.close()


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    return lambda: not running(processes)


def child_running(up: psutil.Popen, word: str) -> psutil.Process:
    [found] = [child for child in running(up.children()) if any(word in part for part in child.cmdline())]
    return found


def test_up_serves_a_home_until_it_is_stopped_and_leaves_no_process_behind(home: Home) -> None:
    up = home.up()
    until(lambda: "Ctrl-C" in home.printed(0) or up.poll() is not None, seconds=READY)
    key = (home.path / "local.key").read_text().strip()
    assert home.printed(0).count(key) == 1
    assert stat.S_IMODE((home.path / "local.key").stat().st_mode) == 0o600
    models = home.get("/v1/models")
    assert models is not None
    assert [model["id"] for model in models.json()["data"]] == ["tiny"]

    second = home.up(PAIRTUNE_PORT="1")
    assert second.wait(60) == 1
    assert f"pairtune is already up in {home.path}; set PAIRTUNE_HOME" in home.printed(1)

    # Killed outright, it takes its services along; only PostgreSQL stays, and the next one takes it over.
    family = [child for child in up.children(recursive=True) if child.name() != "postgres"]
    postmaster = home.postmaster()
    assert postmaster is not None
    up.kill()
    up.wait()
    until(gone(family))
    assert postmaster.is_running()

    third = home.up()
    until(lambda: "Ctrl-C" in home.printed(2) or third.poll() is not None, seconds=READY)
    assert home.postmaster() == postmaster
    assert key not in home.printed(2)
    for word in ("worker.dispatcher", "valkey-server"):
        child_running(third, word).kill()
    until(lambda: "dispatcher ended with code -9; starting it again" in home.printed(2), seconds=20)
    until(lambda: "valkey had ended and was started again" in home.printed(2), seconds=20)
    until(home.ready, seconds=20)
    until(lambda: len(running(third.children())) == SERVICES + 1)

    family = [*third.children(recursive=True), postmaster, *postmaster.children()]
    third.send_signal(signal.SIGINT)
    assert third.wait(60) == 0
    assert "Stopping" in home.printed(2)
    assert running(family) == []
    assert home.get("/healthz") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [("[[base]\n", "cannot be used"), ('[[base]]\nname = "x"\nfamily = "sdxl"\nsource = "./gone"\n', "no directory")],
)
def test_a_list_of_bases_that_cannot_be_used_is_told_before_anything_starts(
    home: Home, content: str, reason: str
) -> None:
    (home.path / "bases.toml").write_text(content)
    assert home.up().wait(60) == 1
    assert reason in home.printed(0)
    assert "Traceback" not in home.printed(0)
    assert not (home.path / "postgres").exists()


def test_a_home_that_postgresql_cannot_live_in_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path / "my home")
    assert home.up().wait(60) == 1
    assert "has a space in it; set PAIRTUNE_HOME to another directory." in home.printed(0)


def test_a_taken_port_is_told(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", home.port))
        taken.listen()
        assert home.up().wait(60) == 1
    assert f"Port {home.port} on 127.0.0.1 is taken; set PAIRTUNE_PORT." in home.printed(0)
