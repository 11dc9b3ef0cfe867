"""The training program with its imports behind it: a server that forks a process for each run.

What such a process does from there on is what ``python -m trainer`` does; what it saves is the seconds that importing
torch and diffusers takes. The server itself computes nothing, so that there are no threads to lose in a fork. One run
at a time; it is started over a socket, with the descriptors that become the run's stdout and stderr.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, NoReturn

from trainer.runtime.signals import stop_on_signals
from worker.runtime.process import die_with_parent, end_group

ROOT = Path(__file__).parents[2]
LONG = 65536  # bytes, more than any order has


@dataclass
class Forked:
    """As much of ``subprocess.Popen`` as is needed. ``returncode`` is negative for a signal."""

    pid: int
    stdout: IO[str]
    returncode: int = 0

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Server:
    """``environment`` is added to this process's; where it names a rank, every run is that process of a world."""

    def __init__(self, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.trainer.warm", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                start_new_session=True,
            )
        atexit.register(self.end)

    def end(self) -> None:
        end_group(self._process)

    @contextmanager
    def run(self, *arguments: str, stderr: Path, kill_at: int | None = None) -> Iterator[Forked]:
        """``kill_at``: the number of the write to the run's folder before which the process ends by SIGKILL, from 1.

        The block reads stdout; at its end the process has ended, by then or by force.
        """
        reading, writing = os.pipe()
        order = json.dumps({"arguments": arguments, "kill_at": kill_at}).encode()
        with stderr.open("wb") as errors:
            socket.send_fds(self._socket, [order], [writing, errors.fileno()])
        os.close(writing)
        process = Forked(int(self._answer()), os.fdopen(reading))
        ended = False
        try:
            yield process
            ended = True
        finally:
            if not ended:
                process.send_signal(signal.SIGKILL)
            process.stdout.close()
            process.returncode = os.waitstatus_to_exitcode(int(self._answer()))

    def _answer(self) -> bytes:
        answer = self._socket.recv(LONG)
        assert answer, "the server has ended"
        return answer


@cache
def server() -> Server:
    """The one of this test process, started when it is first needed."""
    return Server()


def serve(channel: socket.socket) -> None:
    import_everything()
    while True:
        order, descriptors, _, _ = socket.recv_fds(channel, LONG, 2)
        if not order:
            return
        requested = json.loads(order)
        pid = os.fork()
        if pid == 0:
            run_program(requested["arguments"], requested["kill_at"], *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        channel.send(str(status).encode())


def import_everything() -> None:
    import trainer

    for module in pkgutil.walk_packages(trainer.__path__, "trainer."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel  # noqa: F401  (loaded lazily)
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer  # noqa: F401


def run_program(arguments: list[str], kill_at: int | None, stdout: int, stderr: int) -> NoReturn:
    """In the child: the end of its interpreter, as of the program's own."""
    die_with_parent(os.getppid())
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    stop = stop_on_signals()
    from trainer.program import main

    if kill_at is not None:
        kill_at_write(kill_at, arguments[1])
    sys.exit(main(arguments, stop))


def kill_at_write(number: int, folder: str) -> None:
    """Before a file of the run is opened to be written, or one gets its name: between two of these nothing changes that
    another process could find, as a kill, unlike a power cut, loses no byte that was written."""
    calls = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal calls
        path, *_, flags = arguments if event == "open" else (*arguments[:1], os.O_WRONLY)
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes and str(path).startswith(folder) and not str(path).endswith(".txt"):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda event, arguments: count(event, arguments) if event in ("open", "os.rename") else None)


if __name__ == "__main__":
    die_with_parent(os.getppid())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(socket.socket(fileno=int(sys.argv[1])))
