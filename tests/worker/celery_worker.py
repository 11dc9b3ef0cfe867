"""Workers in processes of their own, as `pairtune up` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cli.local.stack import celery
from store.settings import REPOSITORY, Settings

StartWorker = Callable[..., psutil.Popen]
SHARED = ("home", "database_url", "broker_url", "lease_seconds", "heartbeat_seconds", "grace_seconds")


@contextmanager
def workers(settings: Settings, log: Path) -> Iterator[StartWorker]:
    """What is yielded starts one; its arguments are settings of its own. All of them write to ``log``."""
    started: list[psutil.Popen] = []

    def start(queue: str = "train", processes: int = 1, **own: object) -> psutil.Popen:
        given = {name: getattr(settings, name) for name in SHARED} | own
        variables = {f"PAIRTUNE_{name.upper()}": str(value) for name, value in given.items()}
        command = [sys.executable, "-m", *celery(queue, f"{queue}-{len(started)}@test", processes)]
        with log.open("ab") as output:
            started.append(
                psutil.Popen(
                    command, cwd=REPOSITORY, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT
                )
            )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            for one in [*process.children(recursive=True), process] if process.is_running() else []:
                one.kill()
            process.wait()
