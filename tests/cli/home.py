"""A home directory for `pairtune up`, and what runs in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from store.settings import REPOSITORY
from tests.api.polling import until

READY = 90.0  # seconds, on a machine that may be busy


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

    def up(self, *options: str, **variables: str) -> psutil.Popen:
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
                    [sys.executable, "-m", "cli.main", "up", *options],
                    cwd=self.path,
                    env={**environment, "PYTHONPATH": str(REPOSITORY)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
        return self.started[-1]

    def up_and_ready(self, *options: str, **variables: str) -> psutil.Popen:
        number = len(self.started)
        up = self.up(*options, **variables)
        said = '"key_file"' if "--json" in options else "Ctrl-C"
        until(lambda: said in self.printed(number) or up.poll() is not None, seconds=READY)
        assert up.poll() is None, self.printed(number)
        return up

    def printed(self, number: int) -> str:
        return (self.path / f"up-{number}").read_text()

    def get(self, path: str, *, key: str | None = None) -> httpx.Response | None:
        return self.answer("GET", path, key)

    def status(self, path: str, method: str = "GET", *, key: str | None = None) -> int | None:
        answer = self.answer(method, path, key)
        return answer.status_code if answer is not None else None

    def answer(self, method: str, path: str, key: str | None) -> httpx.Response | None:
        """With the home's own key where none is given; None while nothing listens."""
        own = self.path / "local.key"
        key = key or (own.read_text().strip() if own.exists() else "")
        try:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers)
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


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    return lambda: not running(processes)


def child_running(up: psutil.Popen, word: str) -> psutil.Process:
    [found] = [child for child in running(up.children()) if any(word in part for part in child.cmdline())]
    return found
